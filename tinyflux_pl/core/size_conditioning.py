"""Size conditioning (SDXL): original size, crop and target size of a picture fitted to a frame."""

from __future__ import annotations

from collections.abc import Sequence

SIZE_IDS = "size_ids"


def size_ids(original: Sequence[int], frame: Sequence[int], mode: str) -> list[int]:
    """Original height and width, crop top and left, target height and width, in pixels.

    The crop is counted in the picture as it is once scaled to cover the frame, as SDXL was trained
    (Podell et al. 2023, section 2.2); padded, nothing is cropped.
    """
    (height, width), (down, across) = original, frame
    if mode == "pad" or (height, width) == (down, across):
        return [height, width, 0, 0, down, across]
    scale = max(down / height, across / width)
    top, left = (
        round((side * scale - edge) / 2) for side, edge in ((height, down), (width, across))
    )
    return [height, width, max(top, 0), max(left, 0), down, across]
