"""W&B workspaces as code, and the command that creates or updates them."""
