"""One page about bundles: measured figures, gathered once, as a typed document that JSON, Markdown, HTML and pictures are made of."""
