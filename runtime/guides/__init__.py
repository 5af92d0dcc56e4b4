"""Constraints on what is generated: which tokens may come next."""
