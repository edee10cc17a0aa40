"""From a checkpoint and prompts to pictures on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import CaptionError, ConfigError, CorruptCheckpoint
from tinyflux_pl.core.progress import track
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import build_path
from tinyflux_pl.sampling.images import ImageSampler, settings_of
from tinyflux_pl.sampling.picture import captioned_grid, save_png, to_picture
from tinyflux_pl.text.registry import build_text

WEIGHTS = ("averaged", "raw")


@dataclass
class Pipeline:
    """A trained denoiser with the codec, text encoder and settings it was trained with."""

    denoiser: torch.nn.Module
    sampler: ImageSampler
    checkpoint: directory.Checkpoint
    weights: str

    @classmethod
    def from_checkpoint(cls, path: str | Path, weights: str = "averaged") -> Pipeline:
        """Rebuild everything from a checkpoint's own description; teachers are not needed."""
        if weights not in WEIGHTS:
            raise ConfigError(f"no weights {weights!r}", where="weights", cure="choose " + " or ".join(WEIGHTS))
        checkpoint = open_checkpoint(path)
        config = checkpoint.config
        clock = build_path(config["path"]["name"], config["path"]["config"])
        denoiser = build_denoiser(config["denoiser"]["name"], config["denoiser"]["config"], clock)
        directory.load_weights(denoiser, checkpoint.weights(weights), str(checkpoint.path))
        codec = build_codec(config["codec"]["name"], config["codec"]["config"])
        text = build_text(config["text"]["name"], config["text"]["config"])
        sampler = ImageSampler(codec, text, settings_of(config["sampler"]), tuple(config["image_size"]))
        return cls(denoiser.eval(), sampler, checkpoint, weights)

    def adjusted(
        self,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float | None = None,
        **settings: Any,
    ) -> Pipeline:
        """With other sampler settings or another size; None keeps what the run used."""
        chosen = {k: v for k, v in settings.items() if v is not None}
        if guidance_scale is not None:
            chosen["guidance"] = replace(self.sampler.settings.guidance, scale=float(guidance_scale))
        size = (height or self.sampler.image_size[0], width or self.sampler.image_size[1])
        sampler = replace(self.sampler, settings=replace(self.sampler.settings, **chosen), image_size=size)
        return replace(self, sampler=sampler)

    def write(
        self, prompts: list[str], folder: str | Path, *, n: int = 1, seed: int = 0, negative_prompt: str | None = None
    ) -> tuple[list[Path], Path]:
        """`n` PNG files a prompt and a grid of all; each file says how to make it again."""
        if n < 1:
            raise ConfigError(f"n is {n}", where="n", cure="ask for at least one image")
        folder, size = Path(folder), self.sampler.max_batch
        wanted = [(prompt, i) for prompt in prompts for i in range(n)]
        files, drawn = [], []
        for start in track(range(0, len(wanted), size), "sample", len(wanted), "image", size):
            rows = wanted[start : start + size]
            images = self.sampler.images(
                self.denoiser,
                [prompt for prompt, _ in rows],
                negative_prompt=negative_prompt,
                indices=[i for _, i in rows],
                seed=seed,
            )
            drawn.append(images)
            for (prompt, i), image in zip(rows, images, strict=True):
                path = folder / f"image_{len(files):04d}.png"
                save_png(to_picture(image), path, self.provenance(prompt, seed, i, negative_prompt))
                files.append(path)
        grid = captioned_grid(torch.cat(drawn), [prompt for prompt, _ in wanted], columns=n if len(prompts) > 1 else 0)
        save_png(grid, folder / "grid.png", self.provenance(" | ".join(prompts), seed, 0, negative_prompt))
        return files, folder / "grid.png"

    def provenance(self, prompt: str, seed: int, index: int, negative_prompt: str | None) -> dict[str, Any]:
        """What makes an image again: prompt, seed, its index under the seed, settings, weights."""
        return {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "index": index,
            "image_size": list(self.sampler.image_size),
            "settings": asdict(self.sampler.settings),
            "checkpoint": self.checkpoint.hash,
            "step": self.checkpoint.step,
            "weights": self.weights,
        }


def open_checkpoint(path: str | Path) -> directory.Checkpoint:
    """A checkpoint folder itself, or the newest valid one of a run's folder."""
    path = Path(path)
    if (path / directory.MANIFEST).is_file() or not path.is_dir():
        return directory.read(path)
    for folder in (path / "checkpoints", path):
        found, rejected = directory.newest_valid(folder)
        if found is not None:
            return found
        if rejected:
            raise CorruptCheckpoint("no valid checkpoint: " + "; ".join(rejected), where=str(folder))
    return directory.read(path)


def read_prompts(prompt: str | None, prompt_file: str | Path | None) -> list[str]:
    """The one prompt, or the non-empty lines of a UTF-8 file."""
    if (prompt is None) == (prompt_file is None):
        raise ConfigError("give a prompt or a file of prompts", where="prompt", cure='prompt="..." or prompt_file=FILE')
    if prompt_file is None:
        return [str(prompt)]
    file = Path(prompt_file)
    if not file.is_file():
        raise CaptionError(f"no such file: {file}", where="prompt_file", cure="name a text file, one prompt a line")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise CaptionError(f"{file} holds no prompt", where="prompt_file", cure="write one prompt a line")
    return [line for line in lines if line]
