"""Sol: statistics of a teacher's self-attention at t, as a prior for the student's attention."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.expert import CachedExpert, per_sample
from tinyflux_pl.experts.sol_attention import SolAttention
from tinyflux_pl.experts.teacher import Teacher

SCALES = ("density", "sum")


class Sol(CachedExpert):
    """Feeds `prior_stats` (B, stats) and `prior_map` (B, size, size; the map sums to 1).

    The loss is the squared error of the statistics plus that of the map. map_scale="density"
    compares maps of mean 1, the scale of the student's head: on the scale of sum 1 the error of a
    map of 64 cells is 4096 times smaller and teaches nothing. "sum" compares the port as it is, as
    the original does. Four statistics are those of experts.sol_statistics, three those of the
    original, which its published networks read. clock="literal" caches as the original did, with
    its three.
    """

    name = "sol"
    columns = {"stats": "prior_stats", "spatial": "prior_map"}  # noqa: RUF012  (a constant)

    def __init__(
        self,
        stats: int = 4,
        size: int = 8,
        weight: float = 0.05,
        ramp_steps: int = 2000,
        dropout: float = 0.1,
        dropout_end: float | None = None,
        dropout_steps: int = 0,
        map_scale: str = "density",
        stats_weight: float = 1.0,
        map_weight: float = 1.0,
        t_buckets: Sequence[float] = T_BUCKETS,
        clock: str = "matched",
    ) -> None:
        if map_scale not in SCALES:
            choices = ", ".join(SCALES)
            raise ConfigError(
                f"no map_scale {map_scale!r}",
                where="experts.sol.map_scale",
                cure=f"choose one of {choices}",
            )
        shapes: dict[str, tuple[int, ...]] = {"stats": (stats,), "spatial": (size, size)}
        super().__init__(
            shapes, weight, ramp_steps, dropout, dropout_end, dropout_steps, t_buckets, clock
        )
        self.stats = stats
        self.size = size
        self.map_scale = map_scale
        self.stats_weight = stats_weight
        self.map_weight = map_weight

    def loss(self, heads: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        """Loss (B,) of the two heads against the two ports."""
        scale = self.size**2 if self.map_scale == "density" else 1
        stats = (heads["prior_stats"].float() - targets["prior_stats"].float()).square()
        maps = (heads["prior_map"].float() - targets["prior_map"].float() * scale).square()
        return self.stats_weight * per_sample(stats) + self.map_weight * per_sample(maps)

    def port_options(self) -> dict[str, Any]:
        """The options that open the published network's own ports for Sol."""
        return {"sol": True, "num_sol_stats": self.stats, "sol_size": self.size}

    def extractor(self, teacher: Teacher, student_path: Path, seed: int) -> SolAttention:
        """The extractor of Sol's statistics.

        ConfigError for a number of them that it cannot compute.
        """
        possible = (3,) if self.clock == "literal" else (3, 4)
        if self.stats not in possible:
            raise ConfigError(
                f"stats is {self.stats} with clock={self.clock}",
                where="experts.sol.stats",
                cure="4 or 3 with clock=matched, 3 with clock=literal",
            )
        return SolAttention(
            teacher,
            student_path,
            self.spec.t_buckets,
            seed,
            clock=self.clock,
            size=self.size,
            stats=self.stats,
        )

    def config(self) -> dict[str, Any]:
        """Plain data that rebuilds this expert."""
        return {
            **super().config(),
            "stats": self.stats,
            "size": self.size,
            "map_scale": self.map_scale,
            "stats_weight": self.stats_weight,
            "map_weight": self.map_weight,
        }
