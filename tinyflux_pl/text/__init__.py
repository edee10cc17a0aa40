"""Floor 3: prompts to embeddings."""
