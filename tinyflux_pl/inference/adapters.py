"""Adapters for sampling: from a file in any known layout, or from the run that trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyflux_pl.checkpoints import directory, reference_count, training_state
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.inference import described_parts
from tinyflux_pl.inference.open_checkpoint import is_checkpoint, open_checkpoint
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.methods.adapted_network import add_adapters, extract_adapter
from tinyflux_pl.methods.adapter import Adapter
from tinyflux_pl.methods.adapter_file import file_in, read_adapter
from tinyflux_pl.methods.layer_patterns import linear_layers
from tinyflux_pl.methods.registry import is_distilled, method_of
from tinyflux_pl.sampling.images import settings_of
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.weights.headers import known_sha256, metadata_of

DIGITS = 16  # of the content's hash


@dataclass(frozen=True)
class ReadAdapter:
    """An adapter, its entry in the metadata of pictures, and the settings it was distilled for.

    A file of an adapter does not say that it was distilled; with how many references it was trained
    only those that this project exported do (None: the others).
    """

    adapter: Adapter
    described: dict[str, Any]
    distilled: SamplerSettings | None = None
    references: int | None = None


def with_adapters(pipeline: Pipeline, chosen: Sequence[tuple[Path, float]]) -> Pipeline:
    """The pipeline with adapters from files or runs added to its network, each with its scale.

    A scale of 0 leaves the base as it is. Raises as `read` does.
    """
    if not chosen:
        return pipeline
    read_ones = [(read(path, pipeline.denoiser), scale) for path, scale in chosen]
    add_adapters(pipeline.denoiser, [(each.adapter, scale) for each, scale in read_ones])
    description = [{**each.described, "scale": scale} for each, scale in read_ones]
    distilled = (each.distilled for each, scale in read_ones if scale != 0)
    learnt = next((settings for settings in distilled if settings), pipeline.distilled)
    references = pipeline.references
    for each in (each for each, scale in read_ones if scale != 0):
        references = reference_count.larger(references, each.references)
    origin = {**pipeline.origin, "lora": description}
    return replace(pipeline, origin=origin, distilled=learnt, references=references)


def require_one(path: Path) -> None:
    """Raise CheckpointMismatch for a place without an adapter; its weights are not read."""
    path = path.expanduser()
    if is_checkpoint(path):
        require_adapter(open_checkpoint(path))
    else:
        metadata_of(file_in(path))


def read(path: Path, denoiser: Any) -> ReadAdapter:
    """The adapter at a path, for this denoiser.

    Raises CheckpointMismatch for one of another network or with keys that nothing reads.
    """
    path = path.expanduser()
    if is_checkpoint(path):
        return _of_checkpoint(open_checkpoint(path), denoiser)
    file = file_in(path)
    adapter = read_adapter(file, denoiser)
    content = known_sha256(file)[:DIGITS]
    description = {"name": file.name, "content": content, "layout": adapter.layout}
    references = reference_count.in_metadata(metadata_of(file))
    return ReadAdapter(adapter, description, references=references)


def of_checkpoint(checkpoint: Checkpoint, weights: str = "averaged") -> Adapter:
    """The adapter of a run's checkpoint; its base is not read.

    CheckpointMismatch for a checkpoint of another method.
    """
    require_adapter(checkpoint)
    skeleton, saved = described_parts.network(checkpoint, outline=True)
    tensors = checkpoint.weights(weights)
    training_state.require_finite(tensors, str(checkpoint.path))
    for name in saved:
        owner, _, leaf = name.rpartition(".")
        parameter = tensors[directory.plain_key(name)]
        module = skeleton.get_submodule(owner)
        module.register_parameter(leaf, _frozen(parameter))
    return extract_adapter(skeleton)


def require_adapter(checkpoint: Checkpoint) -> None:
    """Raise CheckpointMismatch for a whole network, or the part of one that is no adapter."""
    what = "it holds a whole network and no adapter"
    if "base" in checkpoint.config:
        method = method_of(checkpoint.config)
        if method.exports_adapter:
            return
        what = f"it holds what method={method.name} trains, which is no adapter"
    cure = "name a run of method=lora"
    raise CheckpointMismatch(what, where=str(checkpoint.path), cure=cure)


def _of_checkpoint(checkpoint: Checkpoint, denoiser: Any) -> ReadAdapter:
    adapter = of_checkpoint(checkpoint)
    missing = sorted(adapter.layers.keys() - linear_layers(denoiser).keys())
    if missing:
        raise CheckpointMismatch(
            f"{denoiser.name} has no layer {missing[0]}",
            where=str(checkpoint.path),
            cure="draw with the adapter's own base, or another of its structure",
        )
    description = {"name": "checkpoint", "content": checkpoint.hash, "layout": adapter.layout}
    config = checkpoint.config
    distilled = settings_of(config["sampler"]) if is_distilled(config) else None
    return ReadAdapter(adapter, description, distilled, reference_count.recorded(config))


def _frozen(tensor: Any) -> Any:
    import torch

    return torch.nn.Parameter(tensor, requires_grad=False)
