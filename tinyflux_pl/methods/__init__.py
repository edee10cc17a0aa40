"""Training methods: the parameters of a denoiser that are trained, and additions to them."""
