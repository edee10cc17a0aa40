"""Reports for people and the record of a run."""
