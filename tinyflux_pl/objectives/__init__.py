"""Floor 5: a batch and a denoiser in, named loss terms out."""
