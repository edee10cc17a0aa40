"""From a checkpoint and prompts to pictures on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.checkpoints import directory, reference_count, training_state
from tinyflux_pl.core import precision as formats
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.finite import require_finite_weights
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.engine.accelerator import device_of
from tinyflux_pl.engine.placement import RESIDENT, Placement
from tinyflux_pl.inference import described_parts, provenance
from tinyflux_pl.inference.batch_record import batch_metadata
from tinyflux_pl.inference.open_checkpoint import open_checkpoint
from tinyflux_pl.inference.picture_folder import PictureFolder
from tinyflux_pl.inference.picture_size import check_size, warn_if_far
from tinyflux_pl.inference.prompts import read_prompts
from tinyflux_pl.inference.stages import Stages
from tinyflux_pl.methods.registry import is_distilled
from tinyflux_pl.sampling.grid import Grid
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.sampling.picture import to_picture

# `read_prompts` for scripts outside this repository, which import it from here
__all__ = ["Pipeline", "device_of", "read_prompts"]

WEIGHTS = ("averaged", "raw")


@dataclass
class Pipeline:
    """A trained denoiser with the codec, text encoder and settings of its training."""

    denoiser: Any  # core.protocols.Denoiser, a module
    sampler: ImageSampler
    origin: dict[str, Any]  # what the weights are, for the metadata of pictures
    precision: str = "32-true"
    trained: tuple[int, int] | None = None  # (height, width) of a checkpoint's own pictures
    distilled: SamplerSettings | None = None  # those that the weights were distilled for
    references: int | None = None  # beside each training picture; None: by the network's own rule

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path | directory.Checkpoint,
        weights: str = "averaged",
        base: str | None = None,
    ) -> Pipeline:
        """Rebuild everything from a checkpoint's own description; teachers are not needed.

        `base` is where the frozen weights of an adapter lie now; None: where they were.
        """
        if weights not in WEIGHTS:
            raise ConfigError(
                f"no weights {weights!r}", where="weights", cure="choose " + " or ".join(WEIGHTS)
            )
        checkpoint = path if isinstance(path, directory.Checkpoint) else open_checkpoint(path)
        parts = described_parts.parts(checkpoint, base=base)
        read = checkpoint.weights(weights)
        training_state.require_finite(read, str(checkpoint.path))
        directory.load_weights(parts.denoiser, read, str(checkpoint.path), parts.saved)
        denoiser = parts.denoiser
        sampler = ImageSampler(
            parts.codec, parts.text, parts.settings, parts.image_size, finite=True
        )
        origin = {"checkpoint": checkpoint.hash, "step": checkpoint.step, "weights": weights}
        origin["model"] = {
            "name": denoiser.name,
            "experts": checkpoint.config.get("experts"),
            "data": checkpoint.config.get("data"),
        }
        if "base" in checkpoint.config:
            base_of = {**checkpoint.config["base"], "method": checkpoint.config["method"]["name"]}
            origin["base"] = provenance.strip_paths(provenance.shorten_hashes(base_of))
        distilled = parts.settings if is_distilled(checkpoint.config) else None
        if "teacher" in checkpoint.config:
            taught_by = provenance.shorten_hashes(checkpoint.config["teacher"])
            origin["teacher"] = provenance.strip_paths(taught_by)
        built = cls(denoiser.eval(), sampler, origin, "32-true", parts.image_size, distilled)
        return replace(built, references=reference_count.recorded(checkpoint.config))

    @classmethod
    def from_parts(
        cls,
        denoiser: Any,
        codec: Codec,
        text: TextEncoder,
        size: tuple[int, int],
        chosen: Mapping[str, Any],
    ) -> Pipeline:
        """A pipeline of published weights, which do not describe codec, text and sampler.

        `chosen` is how it was asked for, as plain data: weights, revision, dtype, ...
        """
        sampler = ImageSampler(codec, text, SamplerSettings(), size, finite=True)
        kind = "published" if chosen.get("weights") else "random"
        model = {"name": denoiser.name, **chosen, **denoiser.config_dict()}
        return cls(
            denoiser.eval(), sampler, provenance.strip_paths({"weights": kind, "model": model})
        )

    def with_metadata(self, **origin: Any) -> Pipeline:
        """A copy with further entries in the metadata of its pictures."""
        return replace(self, origin={**self.origin, **origin})

    @property
    def cell(self) -> int:
        """Pixels along a side of one token."""
        return self.sampler.codec.latent_spec.downsample * self.denoiser.patch_size

    def adjusted(
        self,
        height: int | None = None,
        width: int | None = None,
        sampler: dict[str, Any] | None = None,
        guidance: dict[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> Pipeline:
        """A copy with another sampler, size or batch size; None keeps the present value."""
        settings = adjusted_settings(self.sampler.settings, sampler, guidance)
        size = (height or self.sampler.image_size[0], width or self.sampler.image_size[1])
        check_size(*size, self.cell)
        self.denoiser.require_size(*size)
        if size != self.sampler.image_size and self.trained is not None:
            warn_if_far(*size, self.trained)
        most = batch_size or self.sampler.max_batch
        return replace(
            self, sampler=replace(self.sampler, settings=settings, image_size=size, max_batch=most)
        )

    def on(self, accelerator: str, precision: str, placement: Placement = RESIDENT) -> Pipeline:
        """Move to a device (`cpu`, `gpu` / `cuda` or `mps`); precision as in training.

        Under another placement parts are loaded and freed with their stages.
        """
        device = torch.device(device_of(accelerator))
        source = self.origin.get("checkpoint") or ", ".join(map(str, self.denoiser.weight_files))
        require_finite_weights(self.denoiser, f"{self.denoiser.name}: {source or 'random weights'}")
        stages = Stages(self.denoiser, self.sampler.codec, self.sampler.text, device, placement)
        sampler = replace(self.sampler, stage=stages, device=device)
        chosen = formats.check_mixed(
            formats.choose(precision, accelerator), self.denoiser.overflows
        )
        return replace(self, precision=chosen, sampler=sampler)

    @property
    def device(self) -> torch.device:
        """The device that draws."""
        return self.sampler.device or next(self.denoiser.parameters()).device

    def write(
        self,
        prompts: list[str],
        folder: str | Path,
        *,
        n: int = 1,
        seed: int = 0,
        negative_prompt: str | None = None,
        grid: int = 64,
        first: int = 0,
    ) -> tuple[list[Path], Path | None]:
        """Write `n` PNG files per prompt, with metadata to reproduce them, and a grid of `grid`.

        The pictures of a prompt are those of the indices `first`, `first + 1` ... under the seed.
        They are written as they are drawn. The numbers go on from those that are in the folder
        already.
        """
        if n < 1:
            raise ConfigError(f"n is {n}", where="n", cure="ask for at least one image")
        pictures, sheet = PictureFolder(folder), Grid(grid)
        requests = [(prompt, i) for prompt in prompts for i in range(first, first + n)]
        options = {"negative_prompt": negative_prompt, "seed": seed}
        paths: list[Path] = []
        described: dict[str, Any] = {}  # hashed once, when the first picture is there
        with formats.autocast(self.precision, self.device):
            batches = self.sampler.batches(
                self.denoiser,
                [prompt for prompt, _ in requests],
                negative_prompt=negative_prompt,
                indices=[i for _, i in requests],
                seed=seed,
            )
            for images in track(batches, "sample", len(requests), "image", self.sampler.max_batch):
                described = described or self.description()
                for image in images:
                    prompt, i = requests[len(paths)]
                    picture = to_picture(image)
                    metadata = {**described, **options, "prompt": prompt, "index": i}
                    metadata |= batch_metadata(requests, len(paths), self.sampler.max_batch)
                    paths.append(pictures.add(picture, metadata))
                    sheet.add(picture, prompt)
        if not sheet.cells:
            return paths, None
        metadata = {**described, **options, "prompt": " | ".join(dict.fromkeys(sheet.captions))}
        return paths, pictures.add_grid(sheet.sheet(n if len(prompts) > 1 else 0), metadata)

    def description(self) -> dict[str, Any]:
        """Plain data that decides images besides prompt, seed and index: names and hashes.

        It contains no paths.
        """
        model = {**self.origin["model"], "content": provenance.contents(self.denoiser.weight_files)}
        return {
            "image_size": list(self.sampler.image_size),
            "settings": asdict(self.sampler.settings),
            "precision": self.precision,
            "device": provenance.device_name(self.device),
            "versions": provenance.versions(),
            "codec": provenance.part(self.sampler.codec),
            "text": provenance.part(self.sampler.text),
            "path": {"name": self.denoiser.path.name, **self.denoiser.path.config()},
            **self.origin,
            "model": model,
        }


def adjusted_settings(
    settings: SamplerSettings,
    sampler: Mapping[str, Any] | None = None,
    guidance: Mapping[str, Any] | None = None,
) -> SamplerSettings:
    """The settings with other values of sampler and guidance; None keeps the present one."""
    settings = replace(settings, **_without_none(sampler))
    return replace(settings, guidance=replace(settings.guidance, **_without_none(guidance)))


def _without_none(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (values or {}).items() if value is not None}
