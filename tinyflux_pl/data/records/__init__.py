"""One Record from each dataset format."""
