"""The components of a run, built from its configuration: codec, text, path, denoiser, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinyflux_pl.app import hardware, picture_frames, run_sampling, unread_settings
from tinyflux_pl.app.experts import online_teacher, pathway, teachers
from tinyflux_pl.app.fitting import control_maps, starting_point, techniques
from tinyflux_pl.app.fitting.chosen_callbacks import chosen_callbacks
from tinyflux_pl.app.fitting.objective import objective_of
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.config.build import build, check_binds
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError, SpecMismatch

if TYPE_CHECKING:
    from tinyflux_pl.core.protocols import Expert, Objective
    from tinyflux_pl.core.target_expert import TargetExpert
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.experts.teacher import Teacher
    from tinyflux_pl.methods.method import Method
    from tinyflux_pl.objectives.teacher_target import TeacherTargets
    from tinyflux_pl.techniques.technique import Technique

J = TypeVar("J", bound=DataJob)


@dataclass
class Parts(Generic[J]):
    """The components that training and extraction share; `config` is the resolved configuration.

    `experts` feed ports, `targets` (by their teacher's name) are regressed on: the pathway decides.
    """

    config: J
    codec: Any
    text: Any
    path: Any
    experts: dict[str, Expert]
    targets: dict[str, TargetExpert]

    @classmethod
    def from_config(cls, config: J) -> Parts[J]:
        """Build all but the denoiser and the teachers, which are large.

        Settings that the configuration leaves open come from the release's files.
        """
        parts = cls.built_from(
            release_settings.with_release_settings(hardware.resolve_auto(config))
        )
        pathway.check(parts.config)
        _ = parts.device  # raises for a missing GPU
        return parts

    @classmethod
    def built_from(cls, config: J) -> Parts[J]:
        """Build the components of a configuration as it is."""
        parts = (build(getattr(config, name), name) for name in ("codec", "text", "path"))
        return cls(config, *parts, pathway.port_experts(config), pathway.target_experts(config))

    @cached_property
    def method(self) -> Method:
        """The training method of a run."""
        method = build(self.config.method, "method")
        method.set_text_encoder(self.text)
        return method

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
    def trains(self) -> str:
        """The kind of module that the objective trains."""
        objective: Any = self.objective(null_text=None, experts=())
        return objective.trains

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return picture_frames.size_of(self.config.data.sides, self.codec.image_size)

    def check(self) -> None:
        """Check a training run before its caches are made; weights stay on the meta device."""
        import torch

        from tinyflux_pl.training.optimizers import build_optimizer

        config = self.config
        check_binds({"logger": config.logger})
        if self.method.adds_to_base and self.text.trained_network() is not None:
            what = f"method={self.method.name} leaves text={self.text.name} as it is, which trains"
            raise ConfigError(what, where="text", cure="method=full, or an encoder that is frozen")
        chosen_callbacks(config.callbacks)
        objective: Any = self.objective(null_text=None, experts=self.experts.values())
        pathway.check_training(config, objective.trains)
        unread_settings.check(config, self.method, objective.unread)
        build(config.schedule, "schedule")
        hardware.require_attention_kernel(config.model, self.device, self.precision)
        starting_point.check(config, self.method, objective.trains)
        with torch.device("meta"):
            network = self.student()
            network.require_trainable()
            run_sampling.check(config, network)
            optimizer = build(config.optimizer, "optimizer")
            build_optimizer(network, optimizer, self.method.rates(network))
        control_maps.check(config, network)
        techniques.check(config, objective.trains, network)
        self.student_objective(null_text=None)
        picture_frames.require_fitting(
            self.image_size, config.data.buckets, self.codec.latent_spec.downsample, network
        )

    @property
    def cached(self) -> dict[str, Expert | TargetExpert]:
        """All experts with cached columns, by the group of the cache."""
        return {**self.experts, **{target.name: target for target in self.targets.values()}}

    def groups(self, source: str) -> dict[str, tuple[str, ...]]:
        """Split -> groups of its cache, encodings first."""
        return pathway.groups(self.config, source, self.experts, self.targets)

    @cached_property
    def online_teacher(self) -> Teacher | None:
        """The teacher that predicts in every step, or None."""
        return online_teacher.load(self.config, self.codec, self.text)

    def teacher(self, group: str) -> Any:
        """Load the teacher that fills a group of the caches."""
        name = next((k for k, target in self.targets.items() if target.name == group), group)
        return teachers.load(self.config, name)

    def objective(
        self,
        null_text: TextEmbeddings | None,
        experts: Iterable[Expert],
        velocities: TeacherTargets | None = None,
        chosen_techniques: Mapping[str, Technique] | None = None,
    ) -> Objective:
        """The training objective."""
        return objective_of(self.config, null_text, experts, velocities, chosen_techniques)

    def student_objective(self, null_text: TextEmbeddings | None) -> Any:
        """The objective of the network that `student` prepared last."""
        added = (online_teacher.velocities(self), techniques.of_run(self.config))
        objective: Any = self.objective(null_text, self.experts.values(), *added)
        return self.method.objective(objective, run_sampling.settings(self.config))

    def student(self, start: Callable[[Any], None] | None = None) -> Any:
        """The denoiser to train, prepared by the method; `start` loads its initial weights first.

        Weights that train are fp32, whatever dtype a release is drawn in: a bf16 weight near 1
        moves in steps of 1/128, and an update of 1e-5 would be rounded away.
        """
        import torch

        from tinyflux_pl.core import rng

        model, options = self.config.model, dict[str, Any]()
        if "dtype" in model and not self.method.adds_to_base:
            options["dtype"] = "float32"
        if "random_weights" in model and self.config.init is not None:
            options["random_weights"] = True  # which `start` replaces
        built = self.denoiser(**options)
        denoiser = starting_point.with_heads_of_base(self.config, self.method, built)
        if start is not None:
            start(denoiser)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config.seed, "method"))
            self.method.prepare(denoiser)
        starting_point.complete(self.config, denoiser, self.method, silent=start is None)
        return denoiser

    def denoiser(self, **options: Any) -> Any:
        """The denoiser, newly initialised from the run's seed, with a port for each expert."""
        import torch

        from tinyflux_pl.core import rng
        from tinyflux_pl.denoisers import text_network
        from tinyflux_pl.experts.expert import merge_port_options

        ports = merge_port_options(self.experts.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive(self.config.seed, "init"))
            denoiser = build(
                {**self.config.model, **options},
                "model",
                latent_spec=self.codec.latent_spec,
                text_spec=self.text.embedded_spec,
                path=self.path,
                **ports,
            )
            if self.trains == "denoiser":
                text_network.attach(denoiser, self.text.trained_network())
        if self.text.text_spec.ids and not denoiser.reads_position_ids:
            what = f"{denoiser.name} reads no token positions, and these conditions have positions"
            raise SpecMismatch(what, where="model", cure="model=flux_core reads sequences")
        return denoiser

    def sampler(self, image_size: tuple[int, int]) -> Any:
        """The image sampler of previews and of the final evaluation."""
        from tinyflux_pl.sampling.images import ImageSampler

        settings = self.method.sampling_settings(run_sampling.settings(self.config))
        text, max_batch = self.method.sampling_text(self.text), self.config.hardware.drawn_at_once
        return ImageSampler(self.codec, text, settings, image_size, max_batch)

    def description(self, denoiser: Any, image_size: tuple[int, int]) -> dict[str, Any]:
        """Configuration stored in checkpoints: registry names and plain values, no targets."""

        def part(component: Any) -> dict[str, Any]:
            return {"name": component.name, "config": component.config()}

        return {
            **({"method": part(self.method)} if self.method.needs_base else {}),
            "denoiser": {"name": denoiser.name, "config": denoiser.config_dict()},
            "path": part(self.path),
            "codec": part(self.codec),
            "text": part(self.text),
            "sampler": asdict(self.method.sampling_settings(run_sampling.settings(self.config))),
            "image_size": list(image_size),
            "experts": pathway.teachers(self.config),
            "data": self.config.data.name,
            "seed": self.config.seed,
        }
