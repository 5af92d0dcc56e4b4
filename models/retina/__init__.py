"""The multi-scale Transformer LM with a retina: one stack whose distant keys and values are pooled (arXiv 2005.00581)."""
