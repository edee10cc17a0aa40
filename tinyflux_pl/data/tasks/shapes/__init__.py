"""One coloured shape a picture."""
