"""The components of a run, built from its configuration: codec, text, path, denoiser, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinyflux_pl.app import hardware, release_settings, starting_point
from tinyflux_pl.app.chosen_callbacks import chosen_callbacks
from tinyflux_pl.app.objective import build_objective
from tinyflux_pl.config.build import build, check_binds
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError, SpecMismatch

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Expert, Objective
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.methods.method import Method

J = TypeVar("J", bound=DataJob)


@dataclass
class Parts(Generic[J]):
    """The components that training and extraction share; `config` is the resolved configuration."""

    config: J
    codec: Any
    text: Any
    path: Any
    experts: dict[str, Any]

    @classmethod
    def from_config(cls, config: J) -> Parts[J]:
        """Build all but the denoiser and the teachers, which are large.

        Settings that the configuration leaves open come from the release's files.
        """
        parts = cls.built_from(release_settings.followed(hardware.resolve_auto(config)))
        parts._check_experts()
        _ = parts.device  # raises for a missing GPU
        return parts

    @classmethod
    def built_from(cls, config: J) -> Parts[J]:
        """Build the components of a configuration as it stands."""
        return cls(
            config=config,
            codec=build(config.codec, "codec"),
            text=build(config.text, "text"),
            path=build(config.path, "path"),
            experts={k: build(node, f"experts.{k}") for k, node in config.experts.items()},
        )

    @cached_property
    def method(self) -> Method:
        """The training method of a run."""
        return build(self.config.method, "method")

    @property
    def device(self) -> str:
        """torch's name of the device of encoders and teachers; ConfigError for a missing GPU."""
        from tinyflux_pl.engine.accelerator import device_of

        return device_of(self.config.hardware.accelerator)

    @property
    def precision(self) -> str:
        """Lightning's name of the number format, `auto` resolved."""
        from tinyflux_pl.core import precision

        return precision.choose(self.config.hardware.precision, self.config.hardware.accelerator)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels: data.image_size, or where it is null the codec's."""
        sides = self.config.data.sides
        if sides is not None:
            return sides
        if self.codec.image_size is not None:
            return self.codec.image_size
        cure = "give a side in pixels, or height and width: data.image_size=[48,64]"
        raise ConfigError("no image size", where="data.image_size", cure=cure)

    def check(self) -> None:
        """Check a training run before its caches are made; weights stay on the meta device."""
        import torch

        from tinyflux_pl.sampling.images import settings_of
        from tinyflux_pl.training.optimizers import build_optimizer

        config = self.config
        check_binds({"logger": config.logger})
        chosen_callbacks(config.callbacks)
        objective: Any = self.objective(null_text=None, experts=self.experts.values())
        build(config.schedule, "schedule")
        settings_of(self.sampler_config())
        hardware.require_attention_kernel(config.model, self.device, self.precision)
        starting_point.check(config, self.method, objective.trains)
        with torch.device("meta"):
            network = self.student()
            optimizer = build(config.optimizer, "optimizer")
            build_optimizer(network, optimizer, self.method.rates(network))
        self.check_size(network.patch_size)
        network.require_size(*self.image_size)

    def check_size(self, patch_size: int = 1) -> None:
        """Raise ConfigError unless the images divide into cells of codec and patches."""
        downsample = self.codec.latent_spec.downsample
        cell = downsample * patch_size
        sides = self.image_size
        if any(side < cell or side % cell for side in sides):
            height, width = (max(1, round(side / cell)) * cell for side in sides)
            near = height if height == width else f"[{height},{width}]"
            raise ConfigError(
                f"images of {sides[0]} x {sides[1]} cannot be cut into cells of {cell} pixels "
                f"(codec {downsample} x patch {patch_size})",
                where="data.image_size",
                cure=f"use multiples of {cell}, such as data.image_size={near}",
            )

    def experts_of(self, source: str) -> tuple[str, ...]:
        """The run's experts whose knowledge a source's samples have."""
        chosen = self.config.data.sources[source].experts
        return tuple(name for name in self.experts if chosen is None or name in chosen)

    def groups(self, source: str) -> dict[str, tuple[str, ...]]:
        """Split -> groups of its cache. Validation measures the student alone: no experts."""
        from tinyflux_pl.cache.store import ENCODINGS

        return {"train": (ENCODINGS, *self.experts_of(source)), "validation": (ENCODINGS,)}

    def _check_experts(self) -> None:
        """Raise ConfigError for an expert that only a source names, or that no source has."""
        sources = self.config.data.sources
        for source, node in sources.items():
            for name in node.experts or ():
                if name not in self.experts:
                    has = ", ".join(self.experts) or "none"
                    raise ConfigError(
                        f"the source has the expert {name!r}, and the run has {has}",
                        where=f"data.sources.{source}.experts",
                        cure=f"choose experts={name} or lune_sol, or remove {name} from the source",
                    )
        for name in self.experts:
            if not any(name in self.experts_of(source) for source in sources):
                raise ConfigError(
                    f"no source has the expert {name!r}",
                    where=f"experts.{name}",
                    cure=f"add it to one, data.sources.NAME.experts=[{name}], or drop it: experts=",
                )

    def teacher(self, expert: str) -> Any:
        """Load the teacher of an expert."""
        node = self.config.teacher.node(expert)
        if not node:
            where = f"teacher.{expert}"
            raise ConfigError(
                f"the expert {expert!r} has no teacher", where=where, cure="teacher=NAME"
            )
        return build(node, f"teacher.{expert}")

    def objective(self, null_text: TextEmbeddings | None, experts: Iterable[Expert]) -> Objective:
        """The training objective."""
        nodes = {"objective": self.config.objective, "timesteps": self.config.timesteps}
        return build_objective(
            lambda group, **objects: build(nodes[group], group, **objects), null_text, experts
        )

    def student(self, start: Callable[[Any], None] | None = None) -> Any:
        """The denoiser to train, prepared by the method; `start` first puts its weights in.

        Weights that train are fp32, whatever dtype a release is drawn in: a bf16 weight near 1
        moves in steps of 1/128, and an update of 1e-5 would be rounded away.
        """
        import torch

        from tinyflux_pl.core import rng

        model, options = self.config.model, dict[str, Any]()
        if "dtype" in model and not self.method.needs_base:
            options["dtype"] = "float32"
        if "random_weights" in model and self.config.init is not None:
            options["random_weights"] = True  # which `start` replaces
        denoiser = self.denoiser(**options)
        if start is not None:
            start(denoiser)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config.seed, "method"))
            self.method.prepare(denoiser)
        return denoiser

    def denoiser(self, **options: Any) -> Any:
        """The denoiser, newly initialised from the run's seed, with a port for each expert."""
        import torch

        from tinyflux_pl.core import rng
        from tinyflux_pl.experts.expert import merge_port_options

        ports = merge_port_options(self.experts.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config.seed, "init"))
            denoiser = build(
                {**self.config.model, **options},
                "model",
                latent_spec=self.codec.latent_spec,
                text_spec=self.text.text_spec,
                path=self.path,
                **ports,
            )
        if self.text.text_spec.ids and not denoiser.reads_position_ids:
            what = f"{denoiser.name} reads no token positions, and these conditions have positions"
            raise SpecMismatch(what, where="model", cure="model=flux_core reads sequences")
        return denoiser

    def sampler(self, image_size: tuple[int, int]) -> Any:
        """The image sampler of previews and of the final evaluation."""
        from tinyflux_pl.sampling.images import ImageSampler, settings_of

        settings = settings_of(self.sampler_config())
        max_batch = self.config.hardware.drawn_at_once
        return ImageSampler(self.codec, self.text, settings, image_size, max_batch)

    def sampler_config(self) -> dict[str, Any]:
        """Sampler and guidance as plain data."""
        return {**self.config.sampler, "guidance": self.config.guidance}

    def description(self, denoiser: Any, image_size: tuple[int, int]) -> dict[str, Any]:
        """The configuration that a checkpoint stores: registry names and plain values, no
        targets.
        """

        def part(component: Any) -> dict[str, Any]:
            return {"name": component.name, "config": component.config()}

        adapted = {"method": part(self.method)} if self.method.needs_base else {}
        return {
            **adapted,
            "denoiser": {"name": denoiser.name, "config": denoiser.config_dict()},
            "path": part(self.path),
            "codec": part(self.codec),
            "text": part(self.text),
            "sampler": self.sampler_config(),
            "image_size": list(image_size),
            "experts": sorted(self.experts),
            "data": self.config.data.name,
            "seed": self.config.seed,
        }
