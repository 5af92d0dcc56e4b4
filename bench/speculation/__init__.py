"""What drafts gain: `foveal bench speculation`."""
