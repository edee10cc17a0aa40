"""Caches of the original TinyFlux trainer: files of torch.save, read and written."""
