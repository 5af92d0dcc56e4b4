"""Transformers that pool tokens where the text says so (arXiv 2211.09761), as PiotrNawrot/dynamic-pooling computes them."""
