"""Memory of the adapters added for sampling, from the headers of their files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tinyflux_pl.app.drawing import adapter_choice
from tinyflux_pl.app.memory.planned_parts import PlannedPart
from tinyflux_pl.checkpoints import directory

FP32 = 4  # bytes: adapters are added in it whatever type their file has


def planned_adapters(lora: Any) -> list[PlannedPart]:
    """A part for each adapter with a nonzero scale; raises as reading the headers does."""
    chosen = [
        path.expanduser() for path, scale in adapter_choice.parse_adapters(lora) if scale != 0
    ]
    return [_part(path) for path in chosen]


def _part(path: Path) -> PlannedPart:
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.methods.adapter_file import file_in
    from tinyflux_pl.weights.headers import tensor_shapes

    if (path / directory.MANIFEST).is_file() or (path / "checkpoints").is_dir():
        shapes = open_checkpoint(path).shapes()
    else:
        shapes = tensor_shapes(file_in(path))
    count = sum(math.prod(shape) for shape in shapes.values())
    return PlannedPart(f"lora: {path.name}", count, "float32", count * FP32)
