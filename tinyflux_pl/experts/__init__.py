"""Floor 5: what a teacher knows, cached, and how it enters the student."""
