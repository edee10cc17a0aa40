"""Class pictures for prior preservation, drawn by the weights that a run starts from."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting.starting_point import CLASS_PICTURES, StartingPoint
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing
    from tinyflux_pl.sampling.images import ImageSampler


class ClassDrawer:
    """The base weights with the run's own sampler (app.generated.drawn_pictures.Drawer)."""

    target = CLASS_PICTURES
    kind = "class"

    def content(self, parts: Parts[Train], node: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data that determines the pictures, except device and number format."""
        texts = _texts(node)
        return {
            "base": _base(parts),
            "prompt": texts[0] if len(texts) == 1 else list(texts),
            "count": node["count"],
            "seed": node["seed"],
            "size": list(parts.image_size),
            "sampler": asdict(parts.sampler(parts.image_size).settings),
            "path": {"name": parts.path.name, **parts.path.config()},
            "codec": parts.codec.fingerprint(),
            "text": parts.text.fingerprint(),
        }

    def prompts(self, node: Mapping[str, Any]) -> Sequence[str]:
        """The class's prompt for each picture; several by turns, each at least once."""
        texts = _texts(node)
        return [texts[index % len(texts)] for index in range(node["count"])]

    def captioned(self, node: Mapping[str, Any]) -> bool:
        """One prompt stands in the configuration; of several each picture has one."""
        return len(_texts(node)) > 1

    def network(self, parts: Parts[Train], node: Mapping[str, Any]) -> tuple[Any, ImageSampler]:
        """The base with the weights that the run starts from."""
        config, device = parts.config, parts.device
        is_random = config.init and "random_weights" in config.model
        denoiser = parts.denoiser(**({"random_weights": True} if is_random else {}))
        StartingPoint(config, parts.method)(denoiser)
        denoiser.to(device).eval()
        parts.codec.to(device)
        parts.text.to(device)
        return denoiser, parts.sampler(parts.image_size)

    def plan(self, parts: Parts[Train], node: Mapping[str, Any]) -> PlannedDrawing:
        """The base network without weights."""
        import torch

        from tinyflux_pl.app.memory.planned_batch import planned_batch
        from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing

        with torch.device("meta"):
            denoiser = parts.denoiser()
        guided = parts.sampler(parts.image_size).settings.guidance.scale != 1
        batch = functools.partial(planned_batch, parts, denoiser)
        return PlannedDrawing(denoiser, parts.codec, parts.text, batch, guided, parts.precision)


def _texts(node: Mapping[str, Any]) -> Sequence[str]:
    """The class's prompts; ConfigError for none, for an empty one, for more than are drawn."""
    texts = [node["prompt"]] if isinstance(node["prompt"], str) else node["prompt"]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        cure = 'data.class_prompt="a photo of a dog", or a list of such prompts'
        raise ConfigError(f"class_prompt is {texts}", where="data.class_prompt", cure=cure)
    if node["count"] < len(texts):
        what = f"{node['count']} pictures of {len(texts)} prompts"
        cure = f"data.class_count={len(texts)} or more, or fewer prompts"
        raise ConfigError(what, where="data.class_count", cure=cure)
    return texts


def _base(parts: Parts[Train]) -> dict[str, Any]:
    """The identity of the weights that the run starts from."""
    import torch

    from tinyflux_pl.methods import base_weights

    if parts.config.init is not None:
        path = Path(parts.config.init).expanduser()
        if path.is_file():
            reference = base_weights.of_file(path)
        else:
            reference = base_weights.of_checkpoint(base_weights.opened(path))
    else:
        with torch.device("meta"):
            network = parts.denoiser()
        reference = base_weights.of_release(parts.config.model, network.weight_files)
    return {key: reference[key] for key in ("kind", "hash", "files") if key in reference}
