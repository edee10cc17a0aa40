"""Floor 4: from noise to latents, the same loop for previews and final images."""
