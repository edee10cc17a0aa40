"""Weights & Biases as the record of a whole run: one run of its own, ended with its exit state."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.training.run_logger import Ending, RunFacts, RunLogger, Samples

Mode = Literal["online", "offline", "disabled"]
LONGEST_NAME, LONGEST_TAG = 128, 64  # characters that W&B takes
STAGING = "WANDB_DATA_DIR"


class WandbRun(WandbLogger, RunLogger):
    """A W&B run whose id, name, group and tags come from the run unless they are given.

    `mode`: online sends at once; offline writes files that `wandb sync` sends; disabled does
    nothing. Closing results, exit code and error are in the run's summary.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "tinyflux_pl",
        mode: Mode = "offline",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            save_dir=save_dir,
            project=project,
            mode=mode,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
            notes=notes,
        )

    @rank_zero_only
    def begin(self, facts: RunFacts) -> None:
        """Start the run, or continue the one of the identity's id."""
        identity, options = facts.identity, self._wandb_init
        options["id"] = self._id = identity.id
        options["name"] = self._name = (options["name"] or identity.name)[:LONGEST_NAME]
        options["group"] = options["group"] or identity.group
        tags = dict.fromkeys([*identity.tags, *(options["tags"] or ())])
        options["tags"] = [tag[:LONGEST_TAG] for tag in tags]
        run = self.experiment
        provenance = {f"provenance/{key}": value for key, value in facts.provenance.items()}
        run.config.update({**facts.configuration, **provenance}, allow_val_change=True)
        for table, rows in facts.tables:
            self._log_table(names.PREFLIGHT.of(table=table), ("item", "value"), rows)

    @rank_zero_only
    def log_samples(self, samples: Samples) -> None:
        """A table of step, seed, caption and picture, and the sheet."""
        import wandb

        rows = [
            (samples.step, samples.seed, caption, wandb.Image(_pixels(picture)))
            for caption, picture in zip(samples.captions, samples.pictures, strict=True)
        ]
        columns = ("step", "seed", "caption", "picture")
        self._log_table(names.SAMPLES.pattern, columns, rows, samples.step)
        sheet = wandb.Image(samples.sheet)
        self.log_metrics({names.GRID.pattern: sheet}, step=samples.step)  # type: ignore[dict-item]

    @rank_zero_only
    def log_results(self, results: Mapping[str, float]) -> None:
        """Into the summary."""
        self.experiment.summary.update(dict(results))

    @rank_zero_only
    def finish(self, ending: Ending) -> None:
        """End the run with its exit code; an interrupted one is marked as preempted."""
        run = self.experiment
        state = {names.STATE.pattern: ending.state, names.EXIT_CODE.pattern: ending.exit_code}
        if ending.error:
            state[names.ERROR.pattern] = ending.error
        run.summary.update(state)
        if ending.state == "interrupted":
            run.mark_preempting()
        run.finish(exit_code=ending.exit_code)

    def _log_table(
        self,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        step: int | None = None,
    ) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        with _staging_in(Path(self.save_dir or ".") / "wandb"):
            self.log_metrics({key: table}, step=step)  # type: ignore[dict-item]


@contextmanager
def _staging_in(folder: Path) -> Generator[None]:
    """Stage images of W&B tables in `folder` within the block, unless the user chose another.

    W&B's default is the home folder, which an offline run would not take along.
    """
    if STAGING in os.environ:
        yield
        return
    os.environ[STAGING] = str(folder)
    try:
        yield
    finally:
        del os.environ[STAGING]


def _pixels(picture: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    return ((picture.movedim(0, -1) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
