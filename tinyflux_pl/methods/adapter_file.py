"""Adapter files in any known layout -> factors by the network's own layer names, strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.methods import adapter_strength
from tinyflux_pl.methods.adapter import LOKR, Adapter, Kronecker, Layer, LowRank, split
from tinyflux_pl.methods.adapter_keys import (
    ALPHA,
    DIFFUSERS,
    DOWN,
    KOHYA,
    MAGNITUDE,
    PEFT,
    TINYFLUX,
    UP,
    layout_of,
)
from tinyflux_pl.methods.layer_patterns import linear_layers
from tinyflux_pl.weights.headers import metadata_of
from tinyflux_pl.weights.key_diff import listed

Slots = dict[str, dict[int, Tensor]]  # slot -> depth -> tensor
NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
CURE = "give the adapter of this network, whole"


def file_in(path: Path) -> Path:
    """The adapter file itself, or that of a folder as peft and diffusers save one.

    CheckpointMismatch where there is none.
    """
    path = path.expanduser()
    for file in (path, *(path / name for name in NAMES)):
        if file.is_file():
            return file
    raise CheckpointMismatch(
        "no adapter found",
        where=str(path),
        cure=f"name a .safetensors file, or a folder with {' or '.join(NAMES)}",
    )


def read_adapter(file: Path, denoiser: Any) -> Adapter:
    """A file's adapter for this denoiser; raises CheckpointMismatch unless every tensor is used.

    Raises UntrustedFile and CorruptCheckpoint as files.read_tensors does.
    """
    tensors, where = files.read_tensors(file), str(file)
    layout, keys = layout_of(tensors, where)
    slots: dict[str, Slots] = {}
    for key, parsed in keys.items():
        slots.setdefault(parsed.layer, {}).setdefault(parsed.slot, {})[parsed.depth] = tensors[key]
    shapes = _shapes(denoiser)
    names = _names(denoiser, layout, list(shapes))
    if unknown := [layer for layer in slots if layer not in names]:
        raise CheckpointMismatch(
            f"{len(unknown):,} of {len(slots):,} layers of this adapter are none of "
            f"{denoiser.name}'s: {listed(dict.fromkeys(unknown, ''))}",
            where=where,
            cure=CURE,
        )
    settings = _settings(layout, file)
    layers: dict[str, Layer] = {}
    for layer, by_slot in slots.items():
        parts = names[layer]
        built = _layer(by_slot, layer, parts, layout, settings, where)
        pieces: list[Layer] = [built]
        if len(parts) > 1:
            if not isinstance(built, LowRank):
                what = f"a LoKr of {layer}, which is {len(parts)} layers here"
                raise CheckpointMismatch(what, where=where, cure="merge it elsewhere first")
            rows = [shapes[part][0] for part in parts]
            if sum(rows) != len(built.up):
                what = f"{layer} has {len(built.up)} rows for {sum(rows)}"
                raise CheckpointMismatch(what, where=where, cure=CURE)
            pieces = list(split(built, rows))
        for part, piece in zip(parts, pieces, strict=True):
            _require_shape(piece, part, shapes[part], where)
            layers[part] = piece
    return Adapter(layers, layout)


def _names(denoiser: Any, layout: str, layer_names: list[str]) -> dict[str, tuple[str, ...]]:
    """A file's layer name -> the network's layers that it covers, from top to bottom."""
    names = {name: (name,) for name in layer_names}
    names |= denoiser.original_layers(layer_names)
    if layout in (KOHYA, TINYFLUX):
        return {name.replace(".", "_"): parts for name, parts in names.items()}
    return names


def _shapes(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """Name within the network -> (rows, columns) of each linear layer."""
    layers: dict[str, Any] = {
        short: denoiser.get_submodule(name) for short, name in linear_layers(denoiser).items()
    }
    return {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}


def _settings(layout: str, file: Path) -> Mapping[str, Any]:
    if layout == PEFT:
        return adapter_strength.of_peft(file)
    metadata = metadata_of(file)
    return adapter_strength.of_diffusers(metadata) if layout == DIFFUSERS else metadata


def _layer(
    slots: Slots,
    layer: str,
    parts: tuple[str, ...],
    layout: str,
    settings: Mapping[str, Any],
    where: str,
) -> Layer:
    """One layer's factors with their strength; CheckpointMismatch where a factor is lacking."""
    alphas = slots.pop(ALPHA, None)
    alpha = None if alphas is None else float(alphas[0])
    factors = {slot: by_depth[0] for slot, by_depth in slots.items()}
    if any(slot in LOKR for slot in factors):
        _require_kronecker(set(factors), layer, where)
        halves = (factors.get(name) for name in ("lokr_w2_a", "lokr_w1_a"))
        half_rank = next((half.shape[1] for half in halves if half is not None), None)
        rank = half_rank or adapter_strength.peft_rank(settings, layer)
        built = Kronecker(factors, _scale(alpha, rank, layer, parts, layout, settings), rank)
        # LyCORIS scales a LoKr only where one of its matrices is given as two
        return replace(built, scale=1.0) if layout == KOHYA and built.is_unfactored else built
    downs, ups = slots.get(DOWN, {}), slots.get(UP, {})
    if not downs or downs.keys() != ups.keys():
        what = f"{layer} has {', '.join(sorted(slots)) or 'only an alpha'}, and not both factors"
        raise CheckpointMismatch(what, where=where, cure=CURE)
    rank = downs[0].shape[0]
    scale = _scale(alpha, rank, layer, parts, layout, settings)
    depths = sorted(downs)
    down = torch.cat([_matrix(downs[i]) for i in depths])
    up = torch.cat([_matrix(ups[i]) for i in depths], 1)
    magnitude = factors.get(MAGNITUDE)
    return LowRank(down, up, scale, None if magnitude is None else magnitude.float().flatten())


def _scale(
    alpha: float | None,
    rank: int,
    layer: str,
    parts: tuple[str, ...],
    layout: str,
    settings: Mapping[str, Any],
) -> float:
    if alpha is not None:
        return alpha / rank
    if layout == TINYFLUX:
        return adapter_strength.tinyflux_scale(settings, parts[0], rank)
    return adapter_strength.peft_scale(settings, layer, rank)


def _require_kronecker(slots: set[str], layer: str, where: str) -> None:
    for name in ("lokr_w1", "lokr_w2"):
        single, halves = {name} & slots, {f"{name}_a", f"{name}_b"} & slots
        if len(single) + len(halves) // 2 != 1 or len(halves) == 1:
            what = f"{layer} lacks a factor of {name}: it has {', '.join(sorted(slots))}"
            raise CheckpointMismatch(what, where=where, cure=CURE)


def _matrix(tensor: Tensor) -> Tensor:
    """A factor as a matrix: kernels of 1 x 1 lose their last two sides."""
    flat = tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    return (tensor.flatten(1) if flat else tensor).float()


def _require_shape(layer: Layer, name: str, shape: tuple[int, int], where: str) -> None:
    if isinstance(layer, LowRank):
        in_file = (len(layer.up), layer.down.shape[-1])
        fits = layer.up.ndim == layer.down.ndim == 2 and layer.up.shape[1] == len(layer.down)
        fits = fits and (layer.magnitude is None or layer.magnitude.numel() == shape[0])
        tensors = [layer.up, layer.down]
    else:
        sides = [_side(layer.factors, name) for name in ("lokr_w1", "lokr_w2")]
        in_file, fits = (sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]), True
        tensors = list(layer.factors.values())
    if not fits or in_file != shape:
        raise CheckpointMismatch(
            f"{name} is {in_file[0]} x {in_file[1]} in this adapter and {shape[0]} x {shape[1]} in "
            "the network",
            where=where,
            cure=CURE,
        )
    if not all(bool(t.float().isfinite().all()) for t in tensors) or not math.isfinite(layer.scale):
        raise CheckpointMismatch(f"{name} is not finite", where=where, cure="fetch it again")


def _side(factors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    if name in factors:
        return factors[name].shape[0], factors[name].shape[1]
    return factors[f"{name}_a"].shape[0], factors[f"{name}_b"].shape[1]
