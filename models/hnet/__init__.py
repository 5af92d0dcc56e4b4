"""H-Net: chunks that the model makes itself, at any number of stages."""
