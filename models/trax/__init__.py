"""The official Hourglass of google/trax (arXiv 2110.13711)."""
