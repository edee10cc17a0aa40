"""The configuration: schema, checks, and construction of objects."""
