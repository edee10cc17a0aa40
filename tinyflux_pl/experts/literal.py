"""What the original cached, for parity with published caches: its clock, its three statistics, its map.

Known not to be right, and kept only here: the teacher's time runs backwards (its timestep 1000 t is
noisiest where the student's t is clean), its input is pure noise whatever the image, `clustering` is
1 - entropy, and the map is resized without antialiasing. What the original does when nothing could be
captured (constants) is not repeated. Its noise depended on the first index of the batch and on the
device's generator; here it is a function of the sample, so features agree for equal inputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyflux_pl.denoisers.unet import UNetDenoiser


def literal_times(t: Tensor, denoiser: UNetDenoiser) -> Tensor:
    """The time at which the denoiser tells its UNet 1000 t."""
    return t.float() * (1000.0 / denoiser.time_scale)


def literal_statistics(statistics: Tensor) -> Tensor:
    """Means over layers (B, >= 2) of locality and entropy -> (B, 3): locality, entropy, 1 - entropy."""
    locality, entropy = statistics[:, 0].clamp(0, 1), statistics[:, 1].clamp(0, 1)
    return torch.stack([locality, entropy, 1 - entropy], -1)


def literal_map(importance: Tensor, size: int) -> Tensor:
    """Column means of one layer (B, H, W) -> (B, size, size), bilinear without antialiasing, not yet normalised."""
    return F.interpolate(importance[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
