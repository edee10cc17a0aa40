"""Training techniques that any run of a denoiser can add: each one class in one file."""
