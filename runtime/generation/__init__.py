"""What is drawn after a prompt: tokens, their text and log probabilities, and what ends them."""
