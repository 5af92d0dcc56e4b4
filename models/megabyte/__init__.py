"""MEGABYTE, in the layout of the lucidrains package (arXiv 2305.07185)."""
