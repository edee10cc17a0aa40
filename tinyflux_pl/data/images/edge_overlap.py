"""The overlap of a picture's edges with a map of edges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

TOLERANCE = 1  # pixels: an edge counts where the other has one that near


def edge_overlap(
    drawn: Bool[np.ndarray, "h w"], expected: Bool[np.ndarray, "h w"], tolerance: int = TOLERANCE
) -> float:
    """The harmonic mean of precision and recall in [0, 1], with a tolerance in pixels.

    As boundaries are compared (Martin et al. 2004), without assigning them one by one. 1 where
    neither has an edge.
    """
    if not drawn.any() and not expected.any():
        return 1.0
    if not drawn.any() or not expected.any():
        return 0.0
    precision = float((drawn & _grown(expected, tolerance)).sum() / drawn.sum())
    recall = float((expected & _grown(drawn, tolerance)).sum() / expected.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _grown(marks: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    side = 2 * by + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(marks, by), (side, side))
    return windows.any((-2, -1))
