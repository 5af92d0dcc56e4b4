"""The retina model, in the manner of arXiv 2005.00581: one stack that pools its distant keys and values."""
