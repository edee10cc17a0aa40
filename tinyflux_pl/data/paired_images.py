"""`PairedImages` under the module's earlier name: scripts outside this repository import it from
here. It lies in data.records.image_pairs.
"""

from tinyflux_pl.data.records.image_pairs import PairedImages

__all__ = ["PairedImages"]
