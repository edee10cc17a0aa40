"""FLOPs of a run's model for one image, for the utilisation of a GPU (MFU)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyflux_pl.app.components import Parts
from tinyflux_pl.engine.peak_flops import count_flops, device_peak_flops

if TYPE_CHECKING:
    from tinyflux_pl.training.datamodule import CachedLatents
    from tinyflux_pl.training.measures import Utilisation


def flops_per_image(parts: Parts, datamodule: CachedLatents) -> float:
    """FLOPs of forward and backward pass per image, of the first micro-batch on the meta device.

    Gradient checkpointing recomputes activations; that work is no part of the model's FLOPs.
    """
    batch = datamodule.first_batch().to("meta")
    with torch.device("meta"):
        network = parts.student()
    objective = parts.student_objective(parts.text.null())

    def loss() -> Tensor:
        return torch.stack(list(objective.loss(network, batch, 0).values())).sum()

    return count_flops(loss) / len(batch)


def utilisation(parts: Parts, datamodule: CachedLatents) -> list[Utilisation]:
    """The measure of MFU, if the peak of the run's GPU is known."""
    from tinyflux_pl.training.measures import Utilisation

    peak = device_peak_flops(parts.device, parts.precision)
    if peak is None:
        return []
    return [Utilisation(peak, lambda: flops_per_image(parts, datamodule))]
