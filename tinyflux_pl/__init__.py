"""Train, distil, fine-tune and run compact flow-matching image models."""

__version__ = "0.1.0"
