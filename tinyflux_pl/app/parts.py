"""Configuration to the parts of a run: codec, text, path, experts, denoiser, sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app.compose import build


@dataclass
class Parts:
    """What meets in a run, built once from plain configuration."""

    config: dict[str, Any]
    codec: Any
    text: Any
    path: Any
    experts: dict[str, Any]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Parts:
        """Build everything but the denoiser and the teachers, which are large."""
        return cls(
            config=config,
            codec=build(config["codec"]),
            text=build(config["text"]),
            path=build(config["path"]),
            experts={name: build(node) for name, node in config["experts"].items()},
        )

    @property
    def device(self) -> str:
        """Where encoders and teachers run."""
        return "cpu" if self.config["hardware"]["accelerator"] == "cpu" else "cuda"

    @property
    def precision(self) -> str:
        """Lightning's name of the number format, `auto` decided."""
        from tinyflux_pl.core import precision as formats

        return formats.choose(self.config["hardware"]["precision"], self.config["hardware"]["accelerator"])

    def teacher(self, expert: str) -> Any:
        """The teacher of an expert, loaded now."""
        return build(self.config["teacher"][expert])

    def denoiser(self) -> Any:
        """The student, newly initialised from the run's seed, with a port for each expert."""
        import torch

        from tinyflux_pl.core import rng

        ports = {k: v for expert in self.experts.values() for k, v in expert.port_options().items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config["seed"], "init"))
            return build(
                self.config["model"],
                latent_spec=self.codec.latent_spec,
                text_spec=self.text.text_spec,
                path=self.path,
                **ports,
            )

    def sampler(self, image_size: tuple[int, int]) -> Any:
        """The sampling loop that previews, the final evaluation and generate.py share."""
        from tinyflux_pl.sampling.images import ImageSampler, settings_of

        return ImageSampler(self.codec, self.text, settings_of(self.sampler_config()), image_size)

    def sampler_config(self) -> dict[str, Any]:
        """How pictures are drawn, as plain data."""
        return {**self.config["sampler"], "guidance": self.config["guidance"]}

    def description(self, denoiser: Any, image_size: tuple[int, int]) -> dict[str, Any]:
        """What a checkpoint says of itself: registry names and plain values, never targets."""

        def part(thing: Any) -> dict[str, Any]:
            return {"name": thing.name, "config": thing.config()}

        return {
            "denoiser": {"name": denoiser.name, "config": denoiser.config_dict()},
            "path": part(self.path),
            "codec": part(self.codec),
            "text": part(self.text),
            "sampler": self.sampler_config(),
            "image_size": list(image_size),
            "experts": sorted(self.experts),
            "data": self.config["data"]["name"],
            "seed": self.config["seed"],
        }
