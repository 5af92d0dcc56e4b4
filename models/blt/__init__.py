"""BLT, the Byte Latent Transformer (arXiv 2412.09871): patches of bytes that end where the next byte is hard to foresee."""
