"""One page about bundles: figures, measured and gathered once, in a typed document that pages and pictures are made of."""
