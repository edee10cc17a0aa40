"""`decode` under the module's earlier name: scripts outside this repository import it from here. It
lies in data.images.decode.
"""

from tinyflux_pl.data.images.decode import decode

__all__ = ["decode"]
