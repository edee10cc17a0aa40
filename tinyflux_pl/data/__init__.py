"""Floor 4: records, the cache store, and the order in which samples are read."""
