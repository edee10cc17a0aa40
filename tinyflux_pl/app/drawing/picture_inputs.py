"""The pictures that a drawing follows: a map, references, a picture to begin from, or a hole."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError


def with_pictures(pipeline: Any, config: Generate) -> Any:
    """The pipeline that draws with the configuration's map, references, picture or hole.

    Its network may lie on the meta device.
    """
    from tinyflux_pl.inference.editing import editing

    pictures = {"references": config.references, "image": config.image, "mask": config.mask}
    if config.control is not None or pipeline.denoiser.hint_shape(1, 1) is not None:
        pipeline = _controlled(pipeline, config)
    if any(pictures.values()) or config.strength is not None:
        has_size = config.height is not None or config.width is not None
        pipeline = editing(pipeline, **pictures, keep_size=has_size, strength=config.strength)
    return pipeline


def _controlled(pipeline: Any, config: Generate) -> Any:
    from tinyflux_pl.inference.control import controlled

    in_conflict = {"reference": config.references, "image": config.image, "cache.kind": None}
    if config.cache.kind != "none" or config.cache.calibrate is not None:
        in_conflict["cache.kind"] = config.cache.kind
    if config.engine.chosen == "offload":
        in_conflict["engine.placement"] = "offload"
    if names := [name for name, value in in_conflict.items() if value]:
        cure = f"leave {', '.join(names)} out"
        raise ConfigError("a control branch does not work with it", where=names[0], cure=cure)
    return controlled(
        pipeline,
        config.control,
        canny=config.control_hint == "canny",
        strength=config.control_strength,
    )
