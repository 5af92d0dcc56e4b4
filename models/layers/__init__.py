"""What models are built of: attention, blocks, and what shortens and lengthens."""
