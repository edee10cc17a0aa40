"""`decode` under its module's earlier name, which scripts outside this repository import."""

from tinyflux_pl.data.images.decode import decode

__all__ = ["decode"]
