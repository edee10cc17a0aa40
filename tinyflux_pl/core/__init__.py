"""Floor 0: types, protocols, errors, files, randomness. Imports nothing of the house."""
