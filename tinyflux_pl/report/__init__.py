"""A run's or a sweep's folder as one self-contained HTML page: `python -m`."""
