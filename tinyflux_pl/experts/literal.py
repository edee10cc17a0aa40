"""The original's clock, three statistics and map, for parity with published caches.

Known errors of the original, repeated only here: the teacher's time runs backwards (its timestep
1000 t is noisiest where the student's t is clean), its input is pure noise whatever the image,
`clustering` is 1 - entropy, and the map is resized without antialiasing. Its constants for failed
captures are not repeated. Its noise depended on the first index of the batch and on the device's
generator; here it is a function of the sample, so features agree for equal inputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyflux_pl.denoisers.unet import UNetDenoiser


def literal_times(t: Tensor, denoiser: UNetDenoiser) -> Tensor:
    """The denoiser's time at which its UNet receives the timestep 1000 t."""
    return t.float() * (1000.0 / denoiser.time_scale)


def literal_statistics(statistics: Tensor) -> Tensor:
    """Layer means of locality and entropy (B, >= 2) -> (B, 3).

    The third is 1 - entropy.
    """
    locality = statistics[:, 0].clamp(0, 1)
    entropy = statistics[:, 1].clamp(0, 1)
    return torch.stack([locality, entropy, 1 - entropy], -1)


def literal_map(importance: Tensor, size: int) -> Tensor:
    """Resize (B, H, W) -> (B, size, size): bilinear without antialiasing, not normalised."""
    sizes = (size, size)
    return F.interpolate(importance[:, None], sizes, mode="bilinear", align_corners=False)[:, 0]
