"""Synthetic and bundled datasets with verifiers."""
