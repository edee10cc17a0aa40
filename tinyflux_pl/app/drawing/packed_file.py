"""GGUF weights in sampling: kept as quantized blocks, or dequantized on loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.app.memory.planned_parts import is_gguf_file
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError

WHERE = "model.packed"


def resolve_packed(config: Generate) -> Generate:
    """The configuration with `model.packed` chosen where it is null.

    Blocks are kept where all of the file's types can be, and nothing reads the numbers of weights.
    ConfigError where they are asked for beside what does.
    """
    model = config.model
    if config.checkpoint is not None or "packed" not in model:
        return config
    readers = {"engine.precision": config.engine.precision, "control": config.control}
    chosen = [name for name, value in readers.items() if value is not None]
    packed = model["packed"]
    if packed and chosen:
        what = f"{chosen[0]} reads the numbers of weights, and {WHERE} keeps the file's blocks"
        raise ConfigError(what, where=WHERE, cure=f"{WHERE}=null, or leave {chosen[0]} out")
    if packed is None:
        packed = not chosen and _can_keep_blocks(model.get("weights"))
    return config.replace(model={**model, "packed": packed})


def _can_keep_blocks(weights: Any) -> bool:
    """True for a GGUF file whose block types are all supported by layers."""
    from tinyflux_pl.denoisers.gguf_linear import readable_types
    from tinyflux_pl.weights import gguf_file

    if not is_gguf_file(weights):
        return False
    return gguf_file.block_types(Path(weights).expanduser()) <= readable_types()
