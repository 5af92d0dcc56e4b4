"""Serving: models over HTTP."""
