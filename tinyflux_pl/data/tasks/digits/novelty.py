"""Distances of generated digits to the nearest training scan, compared with those of real scans."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.digits.verifier import ink_of, scans_of

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


def neighbour_distances(generated: Tensor, training: Tensor) -> dict[str, dict[float, float]]:
    """Quantiles of the distance from each image to its nearest training image.

    Distances are between 8 x 8 scans of ink in [0, 1]. Both (n, 3, H, H) in [-1, 1]. `generated`:
    the pictures, `held_out`: the real scans of the validation split, for comparison: a generator
    that copies lies far below them, one that draws no digits far above.
    """
    training_ink = torch.from_numpy(ink_of(training))
    nearest = {  # distances by subtraction: the product form would lift an exact copy off zero
        name: torch.cdist(
            torch.from_numpy(ink), training_ink, compute_mode="donot_use_mm_for_euclid_dist"
        ).amin(1)
        for name, ink in (("generated", ink_of(generated)), ("held_out", scans_of("validation")[0]))
    }
    return {
        name: {q: float(distance.quantile(q)) for q in QUANTILES}
        for name, distance in nearest.items()
    }
