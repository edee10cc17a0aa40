"""Checks of a sweep's job that need no weights, before its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyflux_pl.app.drawing import from_image
from tinyflux_pl.app.released import small_release
from tinyflux_pl.config import schema


def _training(plain: dict[str, Any]) -> None:
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.fitting import optimized_metric

    config = small_release.with_small_release(schema.read(plain, "train"))
    optimized_metric.check(config)
    if not config.replay:
        Parts.from_config(config).check()


def _extraction(plain: dict[str, Any]) -> None:
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.picture_frames import require_cells

    config = schema.read(plain, "extract")
    if not config.doctor:
        parts = Parts.from_config(config)
        require_cells(parts.image_size, parts.codec.latent_spec.downsample)


def _drawing(plain: dict[str, Any]) -> None:
    from tinyflux_pl.inference.prompts import read_prompts

    config = schema.read(from_image.with_recorded_settings(plain), "generate")
    if config.plan != "only" and config.condition is None:
        read_prompts(config.prompt, config.prompt_file)


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "train": _training,
    "extract": _extraction,
    "generate": _drawing,
}
