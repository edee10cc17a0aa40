"""The forms in which a control branch reads its map: latents of the codec, or pixels."""

from __future__ import annotations

LATENTS = "latents"  # the map encoded as a picture in [-1, 1]: (C, H, W) of the latents
PIXELS = "pixels"  # (3, H, W) in [0, 1], at the picture's own size
HINT = "hint"  # the column of a store
