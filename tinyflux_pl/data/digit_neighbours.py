"""Whether generated digits are new or copies: distances to the nearest training scan, against those of real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux_pl.data.digit_reading import ink_of, scans_of

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


def neighbour_distances(generated: Tensor, training: Tensor) -> dict[str, dict[float, float]]:
    """Quantiles of the distance from each picture to its nearest training picture, as 8 x 8 scans of ink in [0, 1].

    Both (n, 3, H, H) in [-1, 1]. `generated` are the pictures given, `held_out` the real scans of the validation
    split, for comparison: a generator that copies lies far below them, one that draws no digits far above.
    """
    known = torch.from_numpy(ink_of(training))
    nearest = {
        "generated": torch.cdist(torch.from_numpy(ink_of(generated)), known).amin(1),
        "held_out": torch.cdist(torch.from_numpy(scans_of("validation")[0]), known).amin(1),
    }
    return {name: {q: float(distance.quantile(q)) for q in QUANTILES} for name, distance in nearest.items()}
