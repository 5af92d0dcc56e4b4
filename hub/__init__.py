"""Model hubs, of Hugging Face's protocol: checkpoints and bundles come from there by name, and bundles go there."""
