"""Sequences at positions of their own that decode together (docs/adr/0022)."""
