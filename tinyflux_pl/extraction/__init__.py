"""Floor 6: records to store."""
