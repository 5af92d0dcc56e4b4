"""Copies of sessions by name, within budgets of memory and disk, what they begin with kept once."""
