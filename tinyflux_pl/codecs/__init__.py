"""Floor 3: images to normalised latents and back."""
