"""Configuration to the parts of a run: codec, text, path, experts, denoiser, sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app import attention_kernel, release_settings
from tinyflux_pl.app.hardware import decided
from tinyflux_pl.config import signatures
from tinyflux_pl.config.build import build, check_binds
from tinyflux_pl.core.errors import ConfigError, SpecMismatch


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
        """Build everything but the denoiser and the teachers, which are large; a release says what is left open."""
        config = release_settings.followed(decided(config))
        unset = [name for name in ("codec", "text", "path", "model") if not config[name]]
        if unset:
            raise ConfigError(
                f"no {unset[0]} is chosen",
                where="the command line",
                cure=f"name a {unset[0]}; as_trained is generate.py's (of a checkpoint), release a release's",
            )
        parts = cls(
            config=config,
            codec=build(config["codec"], "codec"),
            text=build(config["text"], "text"),
            path=build(config["path"], "path"),
            experts={name: build(node, f"experts.{name}") for name, node in config["experts"].items()},
        )
        parts._check_experts()
        _ = parts.device  # tells of a GPU that is not there
        return parts

    @property
    def device(self) -> str:
        """Where encoders and teachers run; ConfigError for a GPU that is not there."""
        from tinyflux_pl.engine.accelerator import device_of

        return device_of(self.config["hardware"]["accelerator"])

    @property
    def precision(self) -> str:
        """Lightning's name of the number format, `auto` decided."""
        from tinyflux_pl.core import precision as formats

        return formats.choose(self.config["hardware"]["precision"], self.config["hardware"]["accelerator"])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels; null where the codec knows, from the data (sequences)."""
        size = self.config["data"]["image_size"]
        if size is None and self.codec.image_size is not None:
            return self.codec.image_size
        sides = [size, size] if isinstance(size, int) else size
        if not isinstance(sides, list) or [type(side) for side in sides] != [int, int]:
            cure = "give a side in pixels, or height and width: data.image_size=[48,64]"
            raise ConfigError(f"not an image size: {size!r}", where="data.image_size", cure=cure)
        return sides[0], sides[1]

    def check(self) -> None:
        """Judge what a run would otherwise find out only after the caches are made; builds no weights."""
        import torch

        from tinyflux_pl.diffusion.guidance import Guidance
        from tinyflux_pl.sampling.images import settings_of
        from tinyflux_pl.sampling.loop import SamplerSettings
        from tinyflux_pl.training.optimizers import build_optimizer

        check_binds({name: self.config[name] for name in ("timesteps", "schedule", "optimizer", "objective", "logger")})
        timesteps = build(self.config["timesteps"], "timesteps")
        build(self.config["objective"], "objective", timesteps=timesteps, null_text=None, experts=[])
        build(self.config["schedule"], "schedule")
        signatures.check(SamplerSettings, self.config["sampler"], "sampler", ("guidance",))
        signatures.check(Guidance, self.config["guidance"], "guidance")
        settings_of(self.sampler_config())
        attention_kernel.require(self.config["model"], self.device, self.precision)
        with torch.device("meta"):
            network = self.student()
            build_optimizer(network, build(self.config["optimizer"], "optimizer"))
        self.check_size(network.patch_size)
        network.require_size(*self.image_size)

    def experts_of(self, source: str) -> tuple[str, ...]:
        """The run's experts that a source was given; those that it was not are absent from its samples."""
        given = self.config["data"]["sources"][source].get("experts")
        return tuple(name for name in self.experts if given is None or name in given)

    def groups(self, source: str) -> dict[str, tuple[str, ...]]:
        """Split -> what its cache holds. Validation needs no teachers: its loss is that of the student alone."""
        from tinyflux_pl.cache.store import ENCODINGS

        return {"train": (ENCODINGS, *self.experts_of(source)), "validation": (ENCODINGS,)}

    def _check_experts(self) -> None:
        """Raise ConfigError for an expert of a source that the run does not have, or of the run that no source has."""
        sources = self.config["data"]["sources"]
        for source, node in sources.items():
            for name in node.get("experts") or ():
                if name not in self.experts:
                    has = ", ".join(self.experts) or "none"
                    what = f"the source has the expert {name!r}, and the run has {has}"
                    cure = f"choose experts={name} or lune_sol, or leave {name} out of the source's experts"
                    raise ConfigError(what, where=f"data.sources.{source}.experts", cure=cure)
        for name in self.experts:
            if not any(name in self.experts_of(source) for source in sources):
                cure = f"give it to one: data.sources.NAME.experts=[{name}], or leave it out with experts="
                raise ConfigError(f"no source has the expert {name!r}", where=f"experts.{name}", cure=cure)

    def check_size(self, patch: int = 1) -> None:
        """Raise ConfigError unless the codec, and a network of such patches, can cut the images into cells."""
        cell = self.codec.latent_spec.downsample * patch
        if any(side < cell or side % cell for side in self.image_size):
            height, width = (max(1, round(side / cell)) * cell for side in self.image_size)
            near = height if height == width else f"[{height},{width}]"
            raise ConfigError(
                f"images of {self.image_size[0]} x {self.image_size[1]} cannot be cut into cells of {cell} pixels "
                f"(codec {self.codec.latent_spec.downsample} x patch {patch})",
                where="data.image_size",
                cure=f"use multiples of {cell}, such as data.image_size={near}",
            )

    def teacher(self, expert: str) -> Any:
        """The teacher of an expert, loaded now."""
        return build(self.config["teacher"][expert], f"teacher.{expert}")

    def student(self) -> Any:
        """The denoiser as it is trained: with weights in fp32, whatever type a release is drawn in.

        A bf16 weight near 1 moves in steps of 1/128: an update of 1e-5 would be rounded away.
        """
        return self.denoiser(**({"dtype": "float32"} if "dtype" in self.config["model"] else {}))

    def denoiser(self, **changed: Any) -> Any:
        """The student, newly initialised from the run's seed, with a port for each expert."""
        import torch

        from tinyflux_pl.core import rng
        from tinyflux_pl.experts.expert import merge_port_options

        ports = merge_port_options(self.experts.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config["seed"], "init"))
            made = build(
                {**self.config["model"], **changed},
                "model",
                latent_spec=self.codec.latent_spec,
                text_spec=self.text.text_spec,
                path=self.path,
                **ports,
            )
        if self.text.text_spec.ids and not made.reads_position_ids:
            what = f"{made.name} reads no places of tokens, and what is told here stands at places"
            raise SpecMismatch(what, where="model", cure="model=flux_core reads sequences")
        return made

    def sampler(self, image_size: tuple[int, int]) -> Any:
        """The sampling loop that previews, the final evaluation and generate.py share."""
        from tinyflux_pl.sampling.images import ImageSampler, settings_of

        most = self.config["hardware"]["drawn_at_once"]
        return ImageSampler(self.codec, self.text, settings_of(self.sampler_config()), image_size, most)

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
