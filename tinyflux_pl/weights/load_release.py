"""One network of a published release: its files, and loading them into a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, HubError
from tinyflux_pl.weights import tensor_files
from tinyflux_pl.weights.dequantize import UNPACKED, require_plain_config
from tinyflux_pl.weights.find_files import fetch, weights_in
from tinyflux_pl.weights.key_diff import require_match, shapes_of
from tinyflux_pl.weights.key_layout import (
    ONE_RELEASE,
    KeyLayout,
    is_wide,
    packed_rows_in,
    tensors_of_network,
)
from tinyflux_pl.weights.packed_rows import PackedRows, multiplied_out
from tinyflux_pl.weights.weight_files import WeightFiles

# of a network and its packed weights by key: changes layers, and returns what they store of these
Keep = Callable[[nn.Module, Mapping[str, PackedRows], str], dict[str, Tensor]]
STEMS = ("diffusion_pytorch_model", "model")  # diffusers' name and transformers'
OTHER_FORMATS = (
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".gguf",
    ".msgpack",
    ".onnx",
)  # named in the error where nothing else is there


@dataclass(frozen=True)
class WeightSource:
    """Files of a network's weights and the config.json next to them, None if absent."""

    weights: WeightFiles
    config: dict[str, Any] | None
    where: str

    @property
    def named(self) -> bool:
        """True if the user named the file itself, not the folder that it lies in."""
        return [str(file) for file in self.weights.files] == [self.where]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, from the headers alone; CorruptCheckpoint for a truncated file."""
        return self.weights.shapes()


def find(
    weights: str,
    revision: str | None,
    subfolder: str,
    stems: Sequence[str] = STEMS,
    variant: str | None = None,
    key: str = "model.variant",
) -> WeightSource:
    """Find a network by name, in a file, a folder or a repository.

    A file, safetensors or GGUF; a folder that contains it, directly or as `subfolder`; or a pinned
    repository like such a folder, of which only this network is downloaded.

    Sharded weights are read through their index. A `variant` (fp16, ...) is read where the
    configuration's `key` asks for it, else the plain weights, and where there are none the only
    variant. Raises ConfigError, HubError, UntrustedFile as hub.resolve does, UntrustedFile or
    CheckpointMismatch for a file in another format, and HubError where there are no safetensors, or
    several of which none is named.
    """
    root = fetch(weights, revision, subfolder, stems, variant=variant)
    if root.is_file():
        tensor_files.require_weights(root)
        config = _config(root.parent)
        config.pop("quantization_config", None)
        return WeightSource(WeightFiles((root,)), config or None, str(root))
    folder = root / subfolder if (root / subfolder).is_dir() else root
    config = _config(folder)
    require_plain_config(config, folder)
    config.pop("quantization_config", None)  # the weights tell more
    weight_files = weights_in(folder, stems, variant, key) or WeightFiles(
        _only_file(folder, subfolder)
    )
    return WeightSource(weight_files, config or None, str(folder))


def fill(
    module: nn.Module,
    source: WeightSource,
    dtype: torch.dtype,
    original: KeyLayout | None = None,
    structure: dict[str, Any] | None = None,
    ignored: Sequence[str] = (),
    wide: Sequence[str] = (),
    keep: Keep | None = None,
) -> nn.Module:
    """Put a release's tensors into a module of the meta device, strictly, in `dtype`.

    Returns the module.

    Where the file already has `dtype` its memory-mapped pages become the weights, without a copy.
    float8, int8 and the blocks of GGUF are dequantized (weights.dequantize, gguf_file). `ignored`
    are patterns of keys that the reference does not read either, `wide` names of submodules that
    stay in fp32. `keep` takes the blocks that stay packed: see `fill_outline`. Raises what
    `require_fit` does, before a weight is read.
    """
    require_fit(module, source, dtype, original, structure, ignored)
    tensors = tensors_of_network(
        source.weights.tensors(dtype, packed=keep is not None),
        source.where,
        dtype,
        original,
        structure,
        ignored,
    )
    stored = {} if keep is None else keep(module, packed_rows_in(tensors, wide), source.where)
    types = {key: torch.float32 if is_wide(key, wide) else dtype for key in tensors}
    cast = stored | {
        key: multiplied_out(value).to(types[key]) if value.is_floating_point() else value
        for key, value in tensors.items()
        if key not in stored
    }
    module.load_state_dict(cast, strict=True, assign=True)
    empty = [
        name
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if value.is_meta
    ]
    if empty:
        raise CheckpointMismatch(
            f"no release holds {', '.join(empty[:10])}",
            where=type(module).__name__,
            cure=ONE_RELEASE,
        )
    return module


def fill_outline(
    module: nn.Module,
    source: WeightSource,
    dtype: torch.dtype,
    keep: Keep,
    original: KeyLayout | None = None,
    structure: dict[str, Any] | None = None,
    ignored: Sequence[str] = (),
    wide: Sequence[str] = (),
) -> nn.Module:
    """The module on the meta device with the layers that `fill` would give it, by the headers.

    `keep(module, packed, where)` changes layers in place for weights that are PackedRows, and
    returns what of them it keeps, as the layers store it.
    """
    require_fit(module, source, dtype, original, structure, ignored)
    outlines = source.weights.outlines(dtype, packed=True)
    tensors = tensors_of_network(outlines, source.where, dtype, original, structure, ignored)
    keep(module, packed_rows_in(tensors, wide), source.where)
    return module


def require_fit(
    module: nn.Module,
    source: WeightSource,
    dtype: torch.dtype = torch.float32,
    original: KeyLayout | None = None,
    structure: dict[str, Any] | None = None,
    ignored: Sequence[str] = (),
) -> None:
    """Check by the headers that a release's files hold exactly the tensors of this module.

    Raises CheckpointMismatch naming keys of another shape, missing, unexpected or packed,
    CorruptCheckpoint for a truncated file.
    """
    tensors = tensors_of_network(
        source.weights.outlines(), source.where, dtype, original, structure, ignored
    )
    expected = module.state_dict()
    require_match(shapes_of(expected), shapes_of(tensors), source.where, ONE_RELEASE)
    for key, value in tensors.items():
        if value.is_floating_point() != expected[key].is_floating_point():
            raise CheckpointMismatch(
                f"{key} is packed as {value.dtype}", where=source.where, cure=UNPACKED
            )


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The JSON object in a folder; {} where there is none."""
    file = folder / name
    return files.read_object(file) if file.is_file() else {}


def _only_file(folder: Path, subfolder: str) -> tuple[Path, ...]:
    """The only safetensors file of a folder, under any name.

    HubError unless there is exactly one.
    """
    loose = sorted(
        file
        for file in folder.glob("*")
        if file.suffix in (".safetensors", ".sft") and file.is_file()
    )
    if len(loose) == 1:
        return (loose[0],)
    names = [file.name for file in loose] or sorted(
        f.name for f in folder.glob("*") if f.suffix in OTHER_FORMATS
    )
    what = f"{len(loose)} safetensors and no index" if loose else "no safetensors weights"
    if (folder / "model_index.json").is_file():
        what = f"no {subfolder}/ in this {_config(folder, 'model_index.json').get('_class_name')}"
    listing = f": {', '.join(names[:6])}" if names else ""
    raise HubError(
        what + listing, where=str(folder), cure="name the file, or a folder in diffusers' layout"
    )
