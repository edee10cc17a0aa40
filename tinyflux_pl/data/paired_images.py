"""`PairedImages` under its module's earlier name, which outside scripts import."""

from tinyflux_pl.data.records.image_pairs import PairedImages

__all__ = ["PairedImages"]
