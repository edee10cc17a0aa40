"""DistillT5's tokens with CLIP's pooled vector: a small replacement for FLUX.1's T5-XXL."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.text import simulation
from tinyflux_pl.text.clip_t5 import ClipT5
from tinyflux_pl.text.encoder_config import PROJECTED_T5, built, described
from tinyflux_pl.text.pretrained import weight_files
from tinyflux_pl.weights.key_prefixes import unwrapped
from tinyflux_pl.weights.tensor_files import shapes

PROJECTION = "final_projection.0.weight"


class DistillT5(ClipT5):
    """tokens (B, length, projected width) with their mask, pooled (B, CLIP width); fp32 out.

    A T5 base was trained so that its projected states stand in for those of T5-XXL (Wang et al.
    2025, 2503.19897). `t5` is a folder in its layout, or a file with `structures`; arguments are
    ClipT5's. ConfigError for a T5 without the trained projection, before weights are read.
    """

    name = "distill_t5"
    kinds: ClassVar[dict[str, str]] = {"t5": PROJECTED_T5, "clip": "CLIPTextModel"}
    parts: ClassVar[dict[str, str]] = {"t5": "distill_t5", "clip": "clip_l"}

    @cached_property
    def text_spec(self) -> TextSpec:
        """Width of the projection and of CLIP, from config.json or `structures`."""
        width = self._projected_width(*self._described_by("t5"))
        return TextSpec(width, self.length, self._width("clip", "hidden_size"))

    def _projected_width(self, path: Path | None, structure: dict[str, Any] | None) -> int:
        return built(PROJECTED_T5, described(path, structure)).project_out_dim

    def _locate(self, key: str) -> tuple[Path, Path]:
        path, tokenizer = super()._locate(key)
        if key == "t5":
            self._require_projection(path)
        return path, tokenizer

    def _require_projection(self, path: Path) -> None:
        keys = {
            key
            for file in weight_files(path, self.variant).files
            for key in unwrapped(shapes(file), str(file))
        }
        if PROJECTION not in keys:
            structure = self._structure("t5")
            width = described(path, structure).get("d_model", "unknown")
            projected = self._projected_width(path, structure)
            raise ConfigError(
                f"a T5 of width {width} without the trained projection to {projected}",
                where=str(path),
                cure="text.t5=FOLDER of DistillT5, or text=t5xxl_clip with the T5 of the release",
            )

    def _small(self) -> dict[str, Any]:
        small = super()._small()
        t5 = small["structures"]["t5"]
        t5.update(project_in_dim=simulation.T5["d_model"], project_out_dim=simulation.T5["d_model"])
        return small
