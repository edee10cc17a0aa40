"""Floor 5: experts, cached knowledge of teachers and how it enters the student."""
