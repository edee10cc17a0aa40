"""A run's or a sweep's folder as one HTML page that needs nothing else: `python -m`."""
