"""Training methods: which parameters of a denoiser train, and additions to them."""
