"""Replay bundles: everything needed to recompute a rejected step, in one folder."""

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
from tinyflux_pl.objectives.velocity_targets import VelocityTargets
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.skipped_steps import Verdict

FACTS, BATCH, WEIGHTS = "replay.json", "batch.safetensors", "checkpoint"
NUMBERS = ("loss", "norm", "loss_limit", "norm_limit")  # of a verdict; not finite ones are text
NULL = "null"  # prefix of the unconditional text's tensors


def load_batches(data: CachedLatents, step: int, accumulation: int, world: int) -> list[Batch]:
    """Read the micro-batches of a step from the store again: by micro-batch, then by rank."""
    batches = []
    for index in range(step * accumulation, (step + 1) * accumulation):
        for rank in range(world):
            rows = data.order.rank_slice(index, rank, world)
            batches.append(data.train.__getitems__(rows))
    return batches


def named_tensors(value: Any) -> dict[str, Tensor]:
    """Tensors of a batch or text embeddings under dotted names, without other fields."""
    if isinstance(value, Tensor):
        return {"": value}
    if isinstance(value, Batch | TextEmbeddings):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        return {}
    return {
        f"{name}.{key}".rstrip("."): tensor
        for name, item in value.items()
        for key, tensor in named_tensors(item).items()
    }


@dataclass(frozen=True)
class ReplayBundle:
    """Writes the bundles of one run, with its configuration and the description of its parts."""

    run_dir: Path
    config: dict[str, Any]
    description: dict[str, Any]

    def folder(self, step: int) -> Path:
        """The bundle's folder for a step."""
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
        targets: VelocityTargets | None = None,
    ) -> None:
        """Write raw weights as a checkpoint, the step's micro-batches, and the verdict, last.

        `moved`: a later step has changed the weights. `read_again`: the micro-batches come from the
        caches as they are now, not from the memory of the failed step. What `targets` measured
        decides the targets of the step.
        """
        folder = self.folder(verdict.step)
        shutil.rmtree(folder, ignore_errors=True)  # left by a resumed run that failed here again
        directory.save(
            folder / WEIGHTS,
            step=verdict.step,
            config=self.description,
            weights=weights,
            averaged=None,
            state=None,
        )
        tensors = {
            f"{index}.{name}": tensor
            for index, batch in enumerate(batches)
            for name, tensor in named_tensors(batch).items()
        }
        tensors |= {f"{NULL}.{name}": tensor for name, tensor in named_tensors(null_text).items()}
        files.write_tensors(folder / BATCH, tensors)
        facts = {
            "schema": 1,
            "seed": self.config["seed"],
            "found": verdict.to_json(),
            "weights_moved_since": moved,
            "batches_read_again": read_again,
            "velocity_targets": None if targets is None else targets.state(),
            "captions": [batch.captions for batch in batches],
            "config": self.config,
        }
        files.write_json(folder / FACTS, facts)


@dataclass(frozen=True)
class Replay:
    """A bundle's content: configuration, verdict, micro-batches, and weights before the step."""

    config: dict[str, Any]
    verdict: Verdict
    moved: bool
    read_again: bool
    batches: list[Batch]
    null_text: TextEmbeddings
    checkpoint: Checkpoint
    velocity_targets: dict[str, Any] | None = None  # their state

    @classmethod
    def read(cls, path: str | Path) -> Replay:
        """Open a bundle; CorruptCheckpoint if it is not one, or not complete."""
        path = Path(path)
        if not (path / FACTS).is_file():
            cure = "name the folder that the stopped run printed: replay=outputs/RUN/replay_STEP"
            raise CorruptCheckpoint(f"not a replay bundle: no {FACTS}", where=str(path), cure=cure)
        try:
            return cls._read(path)
        except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
            raise CorruptCheckpoint(
                f"{FACTS} does not describe a failed step ({type(error).__name__}: {error})",
                where=str(path),
                cure="name a folder printed by your own run",
            ) from error

    @classmethod
    def _read(cls, path: Path) -> Replay:
        facts = files.read_json(path / FACTS)
        tensors = files.read_tensors(path / BATCH)
        batches = [
            _rebuild_batch(_with_prefix(tensors, str(index)), captions)
            for index, captions in enumerate(facts["captions"])
        ]
        # Bundles of earlier versions name no optimizer.
        verdict = {"optimizer": "", **facts["found"]}
        values = {name: verdict[name] for name in Verdict.__dataclass_fields__}
        numbers = {name: float(values[name]) for name in NUMBERS}
        return cls(
            config=facts["config"],
            verdict=Verdict(**{**values, **numbers}),
            moved=facts["weights_moved_since"],
            # Bundles of earlier versions lack the key and may be either.
            read_again=facts.get("batches_read_again", True),
            batches=batches,
            null_text=TextEmbeddings(**_with_prefix(tensors, NULL)),
            checkpoint=directory.read(path / WEIGHTS),
            velocity_targets=facts.get("velocity_targets"),
        )


def _with_prefix(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name.`, under the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def _rebuild_batch(tensors: dict[str, Tensor], captions: list[str]) -> Batch:
    """The inverse of `named_tensors`."""
    single = {name: t for name, t in tensors.items() if "." not in name}
    text = TextEmbeddings(**_with_prefix(tensors, "text"))
    batch = Batch(text=text, captions=captions, **single)
    references = _with_prefix(tensors, "references")
    return replace(
        batch,
        experts=_with_prefix(tensors, "experts"),
        expert_present=_with_prefix(tensors, "expert_present"),
        references=tuple(references[str(i)] for i in range(len(references))),
    )
