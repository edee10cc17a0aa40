"""Sequence-to-sequence datasets."""
