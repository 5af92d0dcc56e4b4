"""Readers of other people's checkpoints, one for each layout."""
