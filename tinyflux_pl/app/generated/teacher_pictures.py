"""Pictures that a teacher draws for captions that no picture of the data has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app import run_sampling
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import teachers
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing
    from tinyflux_pl.sampling.images import ImageSampler
    from tinyflux_pl.sampling.loop import SamplerSettings

TEACHER_PICTURES = "tinyflux_pl.data.records.teacher_pictures.TeacherPictures"


class TeacherDrawer:
    """A named teacher with its own codec, text and shift (app.generated.drawn_pictures.Drawer)."""

    target = TEACHER_PICTURES
    kind = "teacher"

    def content(self, parts: Parts[Train], node: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data that determines the pictures, except device and number format."""
        teacher = teachers.load(parts.config, node["teacher"])
        return {
            "teacher": teacher.fingerprint(),
            "prompts": list(self.prompts(node)),
            "seed": node["seed"],
            "size": node["size"],
            "sampler": asdict(_settings(parts, teacher.shift, node)),
        }

    def captioned(self, node: Mapping[str, Any]) -> bool:
        """Each picture has a caption of its own."""
        return True

    def prompts(self, node: Mapping[str, Any]) -> Sequence[str]:
        """Balanced captions of the task's training split."""
        return build(node["task"], "data: task").prompts(node["count"], "train", node["seed"])

    def network(self, parts: Parts[Train], node: Mapping[str, Any]) -> tuple[Any, ImageSampler]:
        """The teacher's network."""
        from tinyflux_pl.sampling.images import ImageSampler

        teacher = teachers.load(parts.config, node["teacher"]).to(parts.device)
        codec, text = teacher.codec.to(parts.device), teacher.text.to(parts.device)
        size = (node["size"], node["size"])
        settings = _settings(parts, teacher.shift, node)
        return teacher.denoiser, ImageSampler(codec, text, settings, size)

    def plan(self, parts: Parts[Train], node: Mapping[str, Any]) -> PlannedDrawing:
        """The teacher without weights."""
        import torch

        from tinyflux_pl.app.memory.planned_batch import planned_text
        from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing
        from tinyflux_pl.core.types import Batch

        teacher = teachers.load(parts.config, node["teacher"])
        codec, text = teacher.codec, teacher.text
        side = node["size"] // codec.latent_spec.downsample

        def batch(rows: int) -> Batch:
            latents, index = torch.zeros(rows, codec.latent_spec.channels, side, side), range(rows)
            ids = torch.tensor(index)
            return Batch(latents, planned_text(text.text_spec, rows), ids, ids, [""] * rows)

        guided = _settings(parts, teacher.shift, node).guidance.scale != 1
        return PlannedDrawing(teacher.skeleton, codec, text, batch, guided, parts.precision)


def _settings(parts: Parts[Train], shift: float, node: Mapping[str, Any]) -> SamplerSettings:
    """The run's solver, steps and guidance, with the teacher's shift and the node's scale."""
    settings = replace(run_sampling.settings(parts.config), shift=shift)
    scale = node.get("guidance")
    if scale is None:
        return settings
    try:
        return replace(settings, guidance=replace(settings.guidance, scale=float(scale)))
    except ConfigError as error:
        raise ConfigError(error.what, where="data.teacher_guidance", cure=error.cure) from None
