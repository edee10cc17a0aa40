"""Floor 5: objectives, from a batch and a denoiser to named loss terms."""
