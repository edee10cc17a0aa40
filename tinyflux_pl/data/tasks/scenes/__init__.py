"""Several shapes a picture."""
