"""Models behind HTTP, as OpenAI's clients expect them: `foveal serve`."""
