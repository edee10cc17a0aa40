"""Checks before the first step: data, caches, disk and memory, and a dry run."""
