"""What an expert is: cached buckets, the ports they fill, a loss, and how it ramps up and is withdrawn."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.interpreter import extraction
from tinyflux_pl.core.specs import ExpertSpec
from tinyflux_pl.experts.bucket_interpolation import interpolate


class CachedExpert(ABC):
    """The schedule and the table that Lune and Sol share.

    The loss's weight rises linearly from 0 to `weight` over `ramp_steps`. Each sample goes without the
    teacher with probability `dropout`, moving linearly to `dropout_end` (if given) over `dropout_steps`:
    ending at 1.0, the student trains as it will sample, without teachers.
    """

    name: str
    columns: dict[str, str]  # cached array -> the port it fills

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        weight: float,
        ramp_steps: int,
        dropout: float,
        dropout_end: float | None,
        dropout_steps: int,
        t_buckets: Sequence[float],
        clock: str,
    ) -> None:
        for key, value in (("dropout", dropout), ("dropout_end", dropout_end)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(
                    f"{key} is {value}", where=f"experts.{self.name}.{key}", cure="a probability, in [0, 1]"
                )
        if dropout_end is not None and dropout_steps < 1:
            raise ConfigError(
                f"dropout moves to {dropout_end} in {dropout_steps} steps",
                where=f"experts.{self.name}.dropout_steps",
                cure="give the number of steps the change takes",
            )
        if weight < 0 or ramp_steps < 0:
            raise ConfigError(
                f"weight {weight}, ramp_steps {ramp_steps}", where=f"experts.{self.name}", cure="neither is negative"
            )
        self.spec = ExpertSpec(self.name, shapes, tuple(float(t) for t in t_buckets))
        self.clock = clock
        self.weight, self.ramp_steps = float(weight), int(ramp_steps)
        self.dropout, self.dropout_steps = float(dropout), int(dropout_steps)
        self.dropout_end = self.dropout if dropout_end is None else float(dropout_end)

    def weight_at(self, step: int) -> float:
        """The loss's weight at an optimizer step."""
        return self.weight if step >= self.ramp_steps else self.weight * max(step, 0) / self.ramp_steps

    def dropout_at(self, step: int) -> float:
        """The probability that a sample goes without its teacher."""
        share = 1.0 if step >= self.dropout_steps else max(step, 0) / self.dropout_steps
        return self.dropout + share * (self.dropout_end - self.dropout)

    def ports(self, experts: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]:
        """The batch's buckets ("lune.features": (B, K, E), ...) at t (B,) in the student's time, by port, fp32."""
        found = {}
        for column, port in self.columns.items():
            key = f"{self.name}.{column}"
            if key not in experts:
                raise DataError(
                    f"the batch has no {key!r}, it has {sorted(experts)}",
                    where=f"experts.{self.name}",
                    cure=f"extract the expert {self.name} first: {extraction()}",
                )
            expected = (len(self.spec.t_buckets), *self.spec.shapes[column])
            if tuple(experts[key].shape[1:]) != expected:
                raise DataError(
                    f"{key} is {tuple(experts[key].shape[1:])} a sample, expected {expected}",
                    where=f"experts.{self.name}",
                    cure=f"set the sizes to those of the cache, or extract it again: {extraction('rebuild=true')}",
                )
            found[port] = interpolate(experts[key], t, self.spec.t_buckets)
        return found

    @abstractmethod
    def loss(self, heads: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        """Loss (B,) of the student's heads against the ports' content."""

    def losses(self, heads: dict[str, Tensor], targets: dict[str, Tensor], present: Tensor) -> Tensor:
        """Mean of `loss` over the samples that have this expert; 0 where none has."""
        each = torch.where(present, self.loss(heads, targets), 0.0)
        return each.sum() / present.sum().clamp(min=1)

    def config(self) -> dict[str, Any]:
        """Plain data for checkpoints."""
        return {
            "weight": self.weight,
            "ramp_steps": self.ramp_steps,
            "dropout": self.dropout,
            "dropout_end": self.dropout_end,
            "dropout_steps": max(self.dropout_steps, 1),
            "t_buckets": list(self.spec.t_buckets),
            "clock": self.clock,
        }


def per_sample(error: Tensor) -> Tensor:
    """Mean over everything but the batch, fp32."""
    return error.float().flatten(1).mean(1)
