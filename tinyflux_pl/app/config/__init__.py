"""Configuration: what it may say, and how it becomes objects."""
