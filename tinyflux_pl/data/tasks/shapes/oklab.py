"""OKLab (Ottosson, 2020): a colour space in which distances match perception."""

from __future__ import annotations

import torch
from torch import Tensor


def oklab(rgb: Tensor) -> Tensor:
    """sRGB (N, 3) in [-1, 1] -> OKLab (N, 3)."""
    value = (rgb.clamp(-1.0, 1.0) + 1.0) / 2.0
    linear = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_cones = rgb.new_tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = rgb.new_tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ to_cones.T).clamp_min(0.0) ** (1 / 3) @ to_lab.T
