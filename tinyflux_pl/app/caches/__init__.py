"""The caches of a run: created, found, replaced and verified."""
