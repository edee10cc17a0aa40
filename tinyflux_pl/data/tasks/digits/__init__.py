"""Scanned digits."""
