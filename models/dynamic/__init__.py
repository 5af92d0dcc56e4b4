"""Models that decide themselves when their middle fires: dynamic pooling with boundaries learned beside the language."""
