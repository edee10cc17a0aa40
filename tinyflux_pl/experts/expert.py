"""The base of every expert: cached buckets, the ports they fill, a loss, and its schedules."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.interpreter import extraction
from tinyflux_pl.core.protocols import Expert, Path
from tinyflux_pl.core.specs import ExpertSpec
from tinyflux_pl.experts.bucket_interpolation import interpolate
from tinyflux_pl.experts.feature_capture import BucketExtractor
from tinyflux_pl.experts.teacher import Teacher


class CachedExpert(ABC):
    """An expert whose teacher's features are cached at `t_buckets` and interpolated between them.

    The loss's weight rises linearly from 0 to `weight` over `ramp_steps`. Each sample goes without
    the teacher with probability `dropout`, which moves linearly to `dropout_end` (if given) over
    `dropout_steps`: at 1.0 the student trains as it will sample, without teachers.

    A subclass defines `name`; `columns`, from a cached array to the port it fills; `port_kinds`,
    the registered kind (nets.expert_ports) of each port; `loss` and `extractor`. The arrays'
    `shapes` per bucket give the ports their widths.
    """

    name: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    port_kinds: ClassVar[dict[str, str]] = {}

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
        where = f"experts.{self.name}"
        for key, value in (("dropout", dropout), ("dropout_end", dropout_end)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(
                    f"{key} is {value}", where=f"{where}.{key}", cure="a probability, in [0, 1]"
                )
        if dropout_end is not None and dropout_steps < 1:
            raise ConfigError(
                f"dropout moves to {dropout_end} in {dropout_steps} steps",
                where=f"{where}.dropout_steps",
                cure="give the number of steps the change takes",
            )
        if weight < 0 or ramp_steps < 0:
            raise ConfigError(
                f"weight {weight}, ramp_steps {ramp_steps}", where=where, cure="neither is negative"
            )
        self.spec = ExpertSpec(self.name, shapes, tuple(float(t) for t in t_buckets))
        self.clock = clock
        self.weight = float(weight)
        self.ramp_steps = int(ramp_steps)
        self.dropout = float(dropout)
        self.dropout_steps = int(dropout_steps)
        self.dropout_end = self.dropout if dropout_end is None else float(dropout_end)

    def weight_at(self, step: int) -> float:
        """The loss's weight at an optimizer step."""
        if step >= self.ramp_steps:
            return self.weight
        return self.weight * max(step, 0) / self.ramp_steps

    def dropout_at(self, step: int) -> float:
        """The probability that a sample goes without its teacher at an optimizer step."""
        progress = 1.0 if step >= self.dropout_steps else max(step, 0) / self.dropout_steps
        return self.dropout + progress * (self.dropout_end - self.dropout)

    def ports(self, experts: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]:
        """Interpolate the batch's bucket features (B, K, E) to t (B,): port -> fp32.

        t is in the student's time. DataError for arrays that are missing or of another shape.
        """
        features = {}
        for column, port in self.columns.items():
            key = f"{self.name}.{column}"
            if key not in experts:
                raise DataError(
                    f"the batch has no {key!r}, it has {sorted(experts)}",
                    where=f"experts.{self.name}",
                    cure=f"extract the expert {self.name} first: {extraction()}",
                )
            expected = (len(self.spec.t_buckets), *self.spec.shapes[column])
            shape = tuple(experts[key].shape[1:])
            if shape != expected:
                rebuild = extraction("rebuild=true")
                raise DataError(
                    f"{key} is {shape} a sample, expected {expected}",
                    where=f"experts.{self.name}",
                    cure=f"set the sizes to those of the cache, or extract it again: {rebuild}",
                )
            features[port] = interpolate(experts[key], t, self.spec.t_buckets)
        return features

    @abstractmethod
    def loss(self, heads: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        """Loss (B,) of the student's heads against the teacher's features, both by port."""

    @abstractmethod
    def extractor(self, teacher: Teacher, student_path: Path, seed: int) -> BucketExtractor:
        """The extractor that fills this expert's group of a cache."""

    def port_options(self) -> dict[str, Any]:
        """Options of the denoiser's builder that open this expert's ports."""
        ports = {}
        for column, port in self.columns.items():
            width = self.spec.shapes[column][0]
            ports[port] = {"kind": self.port_kinds[port], "width": width}
        return {"ports": ports}

    def losses(
        self, heads: dict[str, Tensor], targets: dict[str, Tensor], present: Tensor
    ) -> Tensor:
        """Mean of `loss` over the samples that have this expert (present (B,) bool).

        0 if none has.
        """
        per_sample_loss = torch.where(present, self.loss(heads, targets), 0.0)
        return per_sample_loss.sum() / present.sum().clamp(min=1)

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


def merge_port_options(experts: Iterable[Expert]) -> dict[str, Any]:
    """Builder options of all experts of a run; ConfigError where two feed a port of one name."""
    options: dict[str, Any] = {}
    ports: dict[str, Any] = {}
    fed: set[str] = set()
    for expert in experts:
        if shared := sorted(fed.intersection(expert.columns.values())):
            raise ConfigError(
                f"two experts feed the port {shared[0]!r}",
                where=f"experts.{expert.name}",
                cure="give the port of each expert a distinct name (`columns` of its class)",
            )
        fed.update(expert.columns.values())
        expert_options = dict(expert.port_options())
        ports |= expert_options.pop("ports", {})
        options |= expert_options
    return {**options, "ports": ports} if ports else options


def per_sample(error: Tensor) -> Tensor:
    """Mean over everything but the batch, fp32."""
    return error.float().flatten(1).mean(1)
