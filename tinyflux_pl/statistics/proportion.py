"""The interval of a share, such as of pictures that are right."""

from __future__ import annotations

import math
from statistics import NormalDist

from tinyflux_pl.core.errors import DataError


def share_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` trials (1927, JASA 22).

    It speaks of other prompts, not of other seeds. DataError for a share outside [0, 1] or no
    trial.
    """
    if not (0 <= share <= 1 and count > 0 and 0 < level < 1):
        what = f"a share of {share} in {count} trials at level {level}"
        cure = "a share from 0 to 1, one trial or more, a level between 0 and 1"
        raise DataError(what, where="share_interval", cure=cure)
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)
