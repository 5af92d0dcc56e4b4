"""The Hourglass (arXiv 2110.13711), nested to any depth; with one level, a vanilla Transformer."""
