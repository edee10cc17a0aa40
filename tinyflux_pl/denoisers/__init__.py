"""Floor 3: adapters from a network to the one Denoiser contract."""
