"""More than one token per read of the weights: drafts of what may come, checked in one call, taken back where they are wrong.

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192), accept a draft with a
probability. Here every position is drawn as it is without drafts, by a random number of its own, and a draft is right if it is
what was drawn: the text is the same, token for token, and no distribution has to be corrected.
"""
