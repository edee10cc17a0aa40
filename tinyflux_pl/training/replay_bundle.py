"""The folder that a run leaves when it stops for its numbers: all that its last failing step was made of."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.skipped_steps import Verdict

FACTS, BATCH, WEIGHTS = "replay.json", "batch.safetensors", "checkpoint"
NULL = "null"


def batches_of(data: CachedLatents, step: int, accumulation: int, world: int) -> list[Batch]:
    """What every rank was given for a step, one micro-batch after another: read from the store once more."""
    places = [(i, rank) for i in range(step * accumulation, (step + 1) * accumulation) for rank in range(world)]
    return [data.train.__getitems__(data.order.rank_slice(i, rank, world)) for i, rank in places]


def tensors_of(value: Any) -> dict[str, Tensor]:
    """The tensors of a batch or of text under dotted names; what is None or text is left out."""
    if isinstance(value, Tensor):
        return {"": value}
    if isinstance(value, Batch | TextEmbeddings):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple):
        value = {str(i): held for i, held in enumerate(value)}
    if not isinstance(value, dict):
        return {}
    return {f"{name}.{key}".rstrip("."): t for name, held in value.items() for key, t in tensors_of(held).items()}


@dataclass(frozen=True)
class ReplayBundle:
    """Where a run puts its bundles, and what they say of the run: its configuration and its parts."""

    run_dir: Path
    config: dict[str, Any]
    description: dict[str, Any]

    def folder(self, step: int) -> Path:
        """Where the bundle of a step lies."""
        return self.run_dir / f"replay_{step:07d}"

    def write(
        self,
        weights: dict[str, Tensor],
        null_text: TextEmbeddings,
        batches: list[Batch],
        verdict: Verdict,
        *,
        moved: bool,
        read_again: bool,
    ) -> None:
        """Raw weights as a checkpoint, the step's micro-batches, and what was found, last.

        `moved`: a later step has changed the weights. `read_again`: the micro-batches are not those in which the
        step failed, but what the caches hold for it now.
        """
        folder = self.folder(verdict.step)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was resumed and failed there again
        directory.save(
            folder / WEIGHTS,
            step=verdict.step,
            config=self.description,
            weights=weights,
            averaged=None,
            state=None,
        )
        tensors = {f"{i}.{key}": value for i, batch in enumerate(batches) for key, value in tensors_of(batch).items()}
        files.write_tensors(folder / BATCH, tensors | {f"{NULL}.{k}": v for k, v in tensors_of(null_text).items()})
        told = {
            "schema": 1,
            "seed": self.config["seed"],
            "found": verdict.line(),
            "weights_moved_since": moved,
            "batches_read_again": read_again,
            "captions": [batch.captions for batch in batches],
            "config": self.config,
        }
        files.write_json(folder / FACTS, told)


@dataclass(frozen=True)
class Replay:
    """A bundle, read: the run's configuration, the failing step, its micro-batches and the weights before it."""

    config: dict[str, Any]
    found: Verdict
    moved: bool
    read_again: bool
    batches: list[Batch]
    null_text: TextEmbeddings
    checkpoint: Checkpoint

    @classmethod
    def read(cls, path: str | Path) -> Replay:
        """Open a bundle; CorruptCheckpoint if it is not one, or not whole."""
        path = Path(path)
        if not (path / FACTS).is_file():
            cure = "name the folder that the stopped run printed: replay=outputs/RUN/replay_STEP"
            raise CorruptCheckpoint(f"not a replay bundle: no {FACTS}", where=str(path), cure=cure)
        try:
            return cls._read(path)
        except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
            what = f"{FACTS} does not describe a step that failed ({type(error).__name__}: {error})"
            cure = "name a folder that your own run has printed"
            raise CorruptCheckpoint(what, where=str(path), cure=cure) from error

    @classmethod
    def _read(cls, path: Path) -> Replay:
        told = files.read_json(path / FACTS)
        tensors = files.read_tensors(path / BATCH)
        batches = [_batch(_under(tensors, str(i)), captions) for i, captions in enumerate(told["captions"])]
        line = {name: told["found"][name] for name in Verdict.__dataclass_fields__}
        numbers = {k: float(v) for k, v in line.items() if k not in ("step", "sample_ids")}
        return cls(
            config=told["config"],
            found=Verdict(**{**line, **numbers}),
            moved=told["weights_moved_since"],
            read_again=told.get("batches_read_again", True),  # bundles that do not say may be either
            batches=batches,
            null_text=TextEmbeddings(**_under(tensors, NULL)),
            checkpoint=directory.read(path / WEIGHTS),
        )


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}


def _batch(tensors: dict[str, Tensor], captions: list[str]) -> Batch:
    """The batch that `tensors_of` took apart."""
    single = {name: t for name, t in tensors.items() if "." not in name}
    batch = Batch(text=TextEmbeddings(**_under(tensors, "text")), captions=captions, **single)
    references = _under(tensors, "references")
    return replace(
        batch,
        experts=_under(tensors, "experts"),
        expert_present=_under(tensors, "expert_present"),
        references=tuple(references[str(i)] for i in range(len(references))),
    )
