"""The teachers of a run and their pathways to the student."""
