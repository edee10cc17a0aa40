"""Callbacks that a configuration may add to a run; callbacks.extra names them."""
