"""One network of a published release: where its files lie, what they hold, and how they enter a module."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files, hub
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError

STEMS = ("diffusion_pytorch_model", "model")  # diffusers' name and transformers'
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Found:
    """The safetensors that hold a network, and the config.json beside them (None where there is none)."""

    weights: tuple[Path, ...]
    config: dict[str, Any] | None
    where: str

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, mapped from disk and read when it is used; CorruptCheckpoint for a torn file."""
        held: dict[str, Tensor] = {}
        for file in self.weights:
            held |= files.read_tensors(file)
        return held


@dataclass(frozen=True)
class Original:
    """The key layout in which a network was first published, and its way into the layout of diffusers.

    A file is in it when one of its keys contains `mark`. `convert(tensors, structure)` renames, splits and
    reorders; what it does not know it returns under its old key, to be reported as unexpected.
    """

    mark: str
    convert: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]]


def find(weights: str, revision: str | None, subfolder: str, stems: Sequence[str] = STEMS) -> Found:
    """The network behind a name: a safetensors file; a folder that holds it, or holds it as `subfolder`;
    or a pinned repository in the second form, of which only this network is fetched.

    Sharded weights are read through their index. Raises ConfigError, HubError, UntrustedFile as hub.resolve
    does, and HubError where there are no safetensors, or several that no index explains.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    wanted = [f"{s}{end}" for s in stems for end in (".safetensors", "-*.safetensors", ".safetensors.index.json")]
    root = hub.resolve(weights, revision, [f"{prefix}{name}" for name in ("config.json", *wanted)])
    if root.is_file():
        if root.suffix != ".safetensors":
            raise ConfigError(f"{root.name} is no safetensors file", where=str(root), cure="convert it to safetensors")
        return Found((root,), _config(root.parent), str(root))
    folder = root / subfolder if (root / subfolder).is_dir() else root
    return Found(_files(folder, stems), _config(folder), str(folder))


def fill(
    module: nn.Module,
    found: Found,
    dtype: torch.dtype,
    original: Original | None = None,
    structure: dict[str, Any] | None = None,
    ignored: Sequence[str] = (),
    wide: Sequence[str] = (),
) -> nn.Module:
    """Put a release's tensors into a module of the meta device, strictly, in `dtype`; returns the module.

    Where the file already has `dtype` its own pages become the weights; nothing is held twice. `ignored` are
    patterns of keys that the reference itself leaves unread, `wide` names of submodules that stay in fp32.
    Raises CheckpointMismatch naming what is missing, unexpected or of another shape, before anything is assigned.
    """
    held = found.tensors()
    if original is not None and any(original.mark in key for key in held):
        try:
            held = original.convert(dict(held), structure or {})
        except (KeyError, RuntimeError, IndexError) as error:  # a key, a split or a layer that is not there
            raise CheckpointMismatch(
                f"not the whole original layout: {type(error).__name__} {error}", where=found.where, cure=_CURE
            ) from error
    held = {key: value for key, value in held.items() if not any(re.search(pattern, key) for pattern in ignored)}
    require_match({key: tuple(value.shape) for key, value in module.state_dict().items()}, held, found.where)
    types = {key: torch.float32 if set(key.split(".")) & set(wide) else dtype for key in held}
    cast = {key: value.to(types[key]) if value.is_floating_point() else value for key, value in held.items()}
    module.load_state_dict(cast, strict=True, assign=True)
    empty = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if empty:
        raise CheckpointMismatch(f"no release holds {', '.join(empty[:10])}", where=type(module).__name__, cure=_CURE)
    return module


def require_match(expected: Shapes, held: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointMismatch unless keys and shapes agree; names the first ten of each kind."""
    shaped = (key for key in expected if key in held and tuple(held[key].shape) != expected[key])
    kinds = {
        "missing": [key for key in expected if key not in held],
        "unexpected": [key for key in held if key not in expected],
        "of another shape": [f"{key} {tuple(held[key].shape)} for {expected[key]}" for key in shaped],
    }
    told = [f"{len(keys)} {kind}: {', '.join(keys[:10])}" for kind, keys in kinds.items() if keys]
    if told:
        raise CheckpointMismatch("the weights are not this network's; " + "; ".join(told), where=where, cure=_CURE)


_CURE = "give weights and structure of one release; a single file takes its structure from the configuration"


def _config(folder: Path) -> dict[str, Any] | None:
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise CorruptCheckpoint(f"not JSON: {error}", where=str(file), cure="fetch it again") from error


def _files(folder: Path, stems: Sequence[str]) -> tuple[Path, ...]:
    for stem in stems:
        index, whole = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
        if index.is_file():
            return tuple(_shards(index))
        if whole.is_file():
            return (whole,)
    loose = sorted(folder.glob("*.safetensors"))
    if len(loose) != 1:
        what = f"{len(loose)} safetensors and no index" if loose else "no safetensors weights"
        raise HubError(what, where=str(folder), cure="name the file, or a folder in diffusers' layout")
    return (loose[0],)


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CorruptCheckpoint("not an index of shards", where=str(index), cure="fetch it again") from error
    shards = [index.parent / Path(name).name for name in names]  # beside the index, whatever it says
    for shard in shards:
        if not shard.is_file():
            raise CorruptCheckpoint(f"{shard.name} is missing", where=str(index.parent), cure="fetch it again")
    return shards
