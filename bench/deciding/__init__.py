"""What it is worth that the data decides when stages fire: against others, step by step, and in batches."""
