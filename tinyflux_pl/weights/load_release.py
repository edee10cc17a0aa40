"""One network of a published release: where its files lie, what they hold, and how they enter a module."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, HubError
from tinyflux_pl.weights import key_prefixes
from tinyflux_pl.weights.dequantize import CURE, plain, require_plain_config
from tinyflux_pl.weights.find_files import WeightFiles, fetch, weights_in
from tinyflux_pl.weights.key_diff import require_match, shapes_of
from tinyflux_pl.weights.key_prefixes import NETWORK

STEMS = ("diffusion_pytorch_model", "model")  # diffusers' name and transformers'
OTHERS = (".bin", ".ckpt", ".pt", ".pth", ".gguf", ".msgpack", ".onnx")  # told where nothing else is there


@dataclass(frozen=True)
class Found:
    """The safetensors that hold a network, and the config.json beside them (None where there is none)."""

    weights: WeightFiles
    config: dict[str, Any] | None
    where: str

    @property
    def named(self) -> bool:
        """True if the user named the file itself, not the folder that it lies in."""
        return [str(file) for file in self.weights.files] == [self.where]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, from the headers alone; CorruptCheckpoint for a torn file."""
        return self.weights.shapes()


@dataclass(frozen=True)
class Original:
    """The key layout in which a network was first published, and its way into the layout of diffusers.

    `prefixes` are what its keys begin with inside a whole checkpoint, whose other parts are left unread. A file
    is in this layout when one of its own keys contains `mark`. `convert(tensors, structure)` renames, splits and
    reorders; what it does not know it returns under its old key, to be reported as unexpected.
    """

    mark: str
    convert: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]]
    prefixes: tuple[str, ...] = NETWORK


def find(
    weights: str,
    revision: str | None,
    subfolder: str,
    stems: Sequence[str] = STEMS,
    variant: str | None = None,
    key: str = "model.variant",
) -> Found:
    """The network behind a name: a safetensors file; a folder that holds it, or holds it as `subfolder`;
    or a pinned repository in the second form, of which only this network is fetched.

    Sharded weights are read through their index. A `variant` (fp16, ...) is read where the configuration's
    `key` asks for it, else the plain weights, and where there are none the only variant. Raises ConfigError,
    HubError, UntrustedFile as hub.resolve does, UntrustedFile or CheckpointMismatch for a file in another
    format, and HubError where there are no safetensors, or several of which none is named.
    """
    root = fetch(weights, revision, subfolder, stems, variant=variant)
    if root.is_file():
        files.require_tensor_file(root)
        return Found(WeightFiles((root,)), _config(root.parent) or None, str(root))
    folder = root / subfolder if (root / subfolder).is_dir() else root
    config = _config(folder)
    require_plain_config(config, folder)
    found = weights_in(folder, stems, variant, key) or WeightFiles(_loose(folder, subfolder))
    return Found(found, config or None, str(folder))


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

    Where the file already has `dtype` its own pages become the weights; nothing is held twice. float8 and int8
    are multiplied out (core.stored_weights). `ignored` are patterns of keys that the reference itself leaves
    unread, `wide` names of submodules that stay in fp32. Raises what `require_fit` does, before a weight is read.
    """
    require_fit(module, found, dtype, original, structure, ignored)
    held = _own(found.weights.tensors(), found.where, dtype, original, structure, ignored)
    types = {key: torch.float32 if set(key.split(".")) & set(wide) else dtype for key in held}
    cast = {key: value.to(types[key]) if value.is_floating_point() else value for key, value in held.items()}
    module.load_state_dict(cast, strict=True, assign=True)
    empty = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if empty:
        raise CheckpointMismatch(f"no release holds {', '.join(empty[:10])}", where=type(module).__name__, cure=_CURE)
    return module


def require_fit(
    module: nn.Module,
    found: Found,
    dtype: torch.dtype = torch.float32,
    original: Original | None = None,
    structure: dict[str, Any] | None = None,
    ignored: Sequence[str] = (),
) -> None:
    """Judge a release's files by their headers: whether they are this module's, all of them and nothing else.

    Raises CheckpointMismatch naming what is of another shape, missing, unexpected or packed, CorruptCheckpoint for
    a torn file.
    """
    held = _own(found.weights.outlines(), found.where, dtype, original, structure, ignored)
    expected = module.state_dict()
    require_match(shapes_of(expected), shapes_of(held), found.where, _CURE)
    for key, value in held.items():
        if value.is_floating_point() != expected[key].is_floating_point():
            raise CheckpointMismatch(f"{key} is packed as {value.dtype}", where=found.where, cure=CURE)


def _own(
    tensors: Mapping[str, Tensor],
    where: str,
    dtype: torch.dtype,
    original: Original | None,
    structure: dict[str, Any] | None,
    ignored: Sequence[str],
) -> dict[str, Tensor]:
    """The tensors of this network under its own keys, as plain numbers."""
    held = plain(key_prefixes.own(tensors, original.prefixes if original else NETWORK, where), dtype, where)
    if original is not None and any(original.mark in key for key in held):
        try:
            made = original.convert(dict(held), structure or {})
            held = {key: value for key, value in made.items() if value is not None}  # some tables put None for a gap
        except (KeyError, RuntimeError, IndexError, ValueError) as error:  # a key, a split or a layer that is not there
            what = f"not the whole original layout: {type(error).__name__} {str(error)[:200]}"
            raise CheckpointMismatch(what, where=where, cure=_CURE) from error
    return {key: value for key, value in held.items() if not any(re.search(pattern, key) for pattern in ignored)}


_CURE = "give weights and structure of one release; a single file takes its structure from the configuration"


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON object beside weights; {} where there is none."""
    file = folder / name
    return files.read_object(file) if file.is_file() else {}


def _loose(folder: Path, subfolder: str) -> tuple[Path, ...]:
    """The only safetensors of a folder, whatever its name; HubError where there is none, or more than one."""
    loose = sorted(file for file in folder.glob("*") if file.suffix in (".safetensors", ".sft") and file.is_file())
    if len(loose) == 1:
        return (loose[0],)
    there = [file.name for file in loose] or sorted(f.name for f in folder.glob("*") if f.suffix in OTHERS)
    what = f"{len(loose)} safetensors and no index" if loose else "no safetensors weights"
    if (folder / "model_index.json").is_file():
        what = f"no {subfolder}/ in this {_config(folder, 'model_index.json').get('_class_name')}"
    listed = f": {', '.join(there[:6])}" if there else ""
    raise HubError(what + listed, where=str(folder), cure="name the file, or a folder in diffusers' layout")
