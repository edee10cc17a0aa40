"""Floor 5: experts, the cached knowledge of teachers and how it enters the student."""
