"""An adapter in the layouts of peft, diffusers and kohya, readable by their own loaders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.methods.adapter import Adapter, Kronecker, Layer, LowRank, stacked
from tinyflux_pl.methods.adapter_file import NAMES
from tinyflux_pl.methods.adapter_strength import CONFIG

Tensors = dict[str, Tensor]
Written = tuple[Path, Tensors]  # a file of a layout and its tensors


def write(
    adapter: Adapter,
    denoiser: Any,
    layout: str,
    folder: Path,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write into `folder`, replacing existing files; returns the file of the tensors.

    `metadata` joins the file's header, where other programs pass over it. ConfigError for an
    unknown layout, or an adapter that it cannot express.
    """
    if layout not in WRITERS:
        cure = f"choose {', '.join(WRITERS)}"
        raise ConfigError(f"no layout {layout!r}", where="layout", cure=cure)
    file, tensors = WRITERS[layout](adapter, denoiser, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    files.write_tensors(file, contiguous, {"format": "pt", **(metadata or {})})
    return file


def _peft(adapter: Adapter, denoiser: Any, folder: Path) -> Written:
    """adapter_model.safetensors and adapter_config.json."""
    import peft

    tensors: Tensors = {}
    for name, layer in adapter.layers.items():
        prefix = f"base_model.model.{name}"
        if isinstance(layer, LowRank):
            tensors |= _factors(layer, f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight")
            if layer.magnitude is not None:
                tensors[f"{prefix}.lora_magnitude_vector"] = layer.magnitude
        else:
            tensors |= {f"{prefix}.{key}": value for key, value in layer.factors.items()}
    ranks = {name: layer.rank for name, layer in adapter.layers.items()}
    common = {
        "target_modules": sorted(adapter.layers),
        "rank_pattern": ranks,
        "alpha_pattern": {n: layer.scale * ranks[n] for n, layer in adapter.layers.items()},
    }
    if _all(adapter, Kronecker):
        config: Any = peft.LoKrConfig(**common)
    else:
        _require_low_rank(adapter, "peft")
        low_rank: list[Any] = list(adapter.layers.values())
        config = peft.LoraConfig(**common, use_dora=any(x.magnitude is not None for x in low_rank))
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: _listed(value) for key, value in config.to_dict().items()}
    (folder / CONFIG).write_bytes(files.indented(json.loads(json.dumps(plain, default=str))))
    return folder / NAMES[0], tensors


def _diffusers(adapter: Adapter, denoiser: Any, folder: Path) -> Written:
    """pytorch_lora_weights.safetensors, the strength folded into the second factor."""
    _require_low_rank(adapter, "diffusers")
    tensors: Tensors = {}
    for name, layer in adapter.layers.items():
        prefix = f"{denoiser.component}.{name}"
        folded = LowRank(layer.down, layer.up * layer.scale, 1.0, layer.magnitude)
        tensors |= _factors(folded, f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight")
        if layer.magnitude is not None:
            tensors[f"{prefix}.lora_magnitude_vector"] = layer.magnitude
    return folder / NAMES[1], tensors


def _kohya(adapter: Adapter, denoiser: Any, folder: Path) -> Written:
    """kohya.safetensors: lora_unet_ and the original names of the layers, each with its alpha."""
    layers: dict[str, Layer] = dict(adapter.layers)
    renamed: dict[str, Layer] = {}
    for original, parts in denoiser.original_layers(sorted(layers)).items():
        renamed[original] = _fused([layers.pop(part) for part in parts], original)
    for original, parts in _partly(denoiser, layers).items():
        raise ConfigError(
            f"{original} is one layer there, and only {', '.join(parts)} of it are adapted",
            where="layout=kohya",
            cure="layout=diffusers, or train all of its parts",
        )
    tensors: Tensors = {}
    for name, layer in (renamed | layers).items():
        prefix = f"lora_unet_{name.replace('.', '_')}"
        alpha = torch.tensor(layer.scale * layer.rank)
        tensors[f"{prefix}.alpha"] = alpha
        if isinstance(layer, Kronecker):
            # LyCORIS reads no strength where both matrices are whole
            factors = dict(layer.factors)
            if layer.is_unfactored:
                factors["lokr_w1"] = factors["lokr_w1"] * layer.scale
            tensors |= {f"{prefix}.{key}": value for key, value in factors.items()}
        elif layer.magnitude is not None:
            cure = "layout=peft or diffusers"
            raise ConfigError("DoRA has no one form in it", where="layout=kohya", cure=cure)
        else:
            tensors |= _factors(layer, f"{prefix}.lora_down.weight", f"{prefix}.lora_up.weight")
    return folder / "kohya.safetensors", tensors


def _fused(parts: list[Layer], name: str) -> Layer:
    if len(parts) == 1:
        return parts[0]
    low_rank = [part for part in parts if isinstance(part, LowRank) and part.magnitude is None]
    if len(low_rank) != len(parts):
        cure = "layout=peft"
        raise ConfigError(f"a LoKr or DoRA of {name}", where="layout=kohya", cure=cure)
    return stacked(low_rank)


def _partly(denoiser: Any, layers: dict[str, Layer]) -> dict[str, list[str]]:
    """Original layers of which only some parts have an adapter."""
    from tinyflux_pl.methods.layer_patterns import linear_layers

    originals = denoiser.original_layers(list(linear_layers(denoiser)))
    adapted_parts = {name: [p for p in parts if p in layers] for name, parts in originals.items()}
    return {name: parts for name, parts in adapted_parts.items() if parts}


def _factors(layer: LowRank, down: str, up: str) -> Tensors:
    return {down: layer.down, up: layer.up}


def _all(adapter: Adapter, kind: type) -> bool:
    return all(isinstance(layer, kind) for layer in adapter.layers.values())


def _require_low_rank(adapter: Adapter, layout: str) -> None:
    if not _all(adapter, LowRank):
        cure = "layout=kohya (LyCORIS)" if layout == "diffusers" else "export it alone"
        raise ConfigError("a LoKr has no form in it", where=f"layout={layout}", cure=cure)


def _listed(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


WRITERS: dict[str, Callable[[Adapter, Any, Path], Written]] = {
    "peft": _peft,
    "diffusers": _diffusers,
    "kohya": _kohya,
}
