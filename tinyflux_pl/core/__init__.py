"""Floor 0: types, protocols, errors, files, randomness. Imports no other package of the project."""
