"""Sealed caches of latents and expert features."""
