"""Checks for NaN and infinity in weights, text, latents and pictures; one device read per stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import NumericsError

CURE = (
    "float32 or bfloat16 in place of float16, if it overflowed there; else fetch the weights again"
)


def require_finite(values: Tensor, stage: str, where: str, cure: str = CURE) -> None:
    """Raise NumericsError, naming the stage, for a tensor that holds NaN or infinity.

    Waits for the device once.
    """
    if values.is_meta or not values.numel():
        return
    # NaN passes through both, without a copy of the values
    ends = torch.stack(torch.aminmax(values.detach()))
    if not bool(ends.isfinite().all()):
        raise NumericsError(f"{stage} not finite", where=where, cure=cure)


def require_finite_weights(module: nn.Module, where: str) -> None:
    """Raise NumericsError naming the first parameters that hold NaN or infinity.

    Waits for the device once.
    """
    named = {
        name: value.detach()
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if value.is_floating_point() and value.numel() and not value.is_meta
    }
    if not named:
        return
    device = next(iter(named.values())).device
    ends = torch.stack(
        [torch.stack(torch.aminmax(value)).float().to(device) for value in named.values()]
    )
    bad = (~ends.isfinite().all(1)).cpu().tolist()
    non_finite = [name for name, is_bad in zip(named, bad, strict=True) if is_bad]
    if non_finite:
        more = f" and {len(non_finite) - 3} more" if len(non_finite) > 3 else ""
        what = f"the weights are not finite: {', '.join(non_finite[:3])}{more}"
        raise NumericsError(
            what, where=where, cure="fetch them again, or take an earlier checkpoint"
        )
