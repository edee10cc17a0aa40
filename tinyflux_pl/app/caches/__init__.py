"""The caches of a run: made, found, replaced, examined."""
