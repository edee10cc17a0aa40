"""The memory plan of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from tinyflux_pl.app.memory.batch_sizes import Sizes
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.engine import memory_plan
from tinyflux_pl.engine.memory_plan import MemoryPlan


@dataclass(frozen=True)
class TrainingPlan:
    """The division of a run's batch, the memory it takes, and the bytes it may take."""

    sizes: Sizes
    gradient_checkpointing: bool
    drawn_at_once: int
    memory: MemoryPlan
    limit: int
    base_precision: str | None = None  # of the frozen weights; None: as they are

    @property
    def fits(self) -> bool:
        """True if every stage fits on the accelerator."""
        return self.memory.worst().total <= self.limit

    @property
    def line(self) -> str:
        """The division in one line."""
        ranks = f" x {self.sizes.ranks} ranks" if self.sizes.ranks > 1 else ""
        checkpointing = "with" if self.gradient_checkpointing else "without"
        batch = self.sizes.micro_batch * self.sizes.accumulation
        needed = memory_plan.size(self.memory.worst().total)
        base = f", the base in {self.base_precision}" if self.base_precision else ""
        return (
            f"batch {batch} = {self.sizes.on_rank} samples x {self.sizes.accumulation} accumulated"
            f"{ranks}, {checkpointing} gradient checkpointing{base}: {needed}"
        )

    def require(self, cure: str) -> None:
        """Raise MemoryPlanError naming the stage that does not fit."""
        if self.fits:
            return
        stage = self.memory.worst()
        rows = sorted(stage.rows.items(), key=lambda row: -row[1])[:4]
        largest = ", ".join(f"{name} {memory_plan.size(count)}" for name, count in rows)
        what = f"the stage {stage.name!r} needs {memory_plan.size(stage.total)} ({largest})"
        what += f" of the {memory_plan.size(self.limit)} that are planned with"
        raise MemoryPlanError(what, where="hardware.memory_gb", cure=cure)
