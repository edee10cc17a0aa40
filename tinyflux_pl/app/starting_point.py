"""The weights that a run starts from: those of `init`, or of the release that `model` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.methods.method import Method


def check(config: Train, method: Method, trains: str) -> None:
    """Raise ConfigError for weights that are given twice, or that the method needs and lacks.

    `trains` is the kind of module; only denoisers take a method that adds to them.
    """
    released = config.model.get("weights")
    if config.init is not None and released:
        raise ConfigError(
            "init= and model.weights= both name weights to start from",
            where="init",
            cure="give one of them",
        )
    if config.init is not None and not Path(config.init).expanduser().exists():
        cure = "a run's folder, a checkpoint's, or a .safetensors file"
        raise ConfigError(f"there is no {config.init}", where="init", cure=cure)
    if not method.needs_base:
        return
    if trains != "denoiser":
        cure = "method=full"
        raise ConfigError(f"method={method.name} of an {trains}", where="method", cure=cure)
    if config.init is None and not released:
        options = "init=outputs/RUN"
        if "weights" in config.model:
            options += ", or model.weights=FOLDER"
        raise ConfigError(
            f"method={method.name} adds to trained weights, and none are given",
            where="init",
            cure=options,
        )
    if config.export_teacher:
        raise ConfigError(
            "an adapter is no teacher by itself",
            where="export_teacher",
            cure="merge it into its base first, or method=full",
        )


def require_same_base(checkpoint: Checkpoint, description: Mapping[str, Any]) -> None:
    """Raise CheckpointMismatch if a run would continue an adapter on other weights than its own."""
    from tinyflux_pl.methods import base_weights

    if "base" in description:
        then = checkpoint.config.get("base") or {}
        base_weights.require_same(then, description["base"], str(checkpoint.path))


class StartingPoint:
    """Puts the weights of `init` into a denoiser, and refers to those that it starts from."""

    def __init__(self, config: Train, method: Method) -> None:
        self.config = config
        self.complete = method.needs_base
        self._init: Mapping[str, Any] | None = None
        self._release: Mapping[str, Any] | None = None

    def __call__(self, denoiser: Any) -> None:
        """Load `init`, and print what of it is new, dropped or widened."""
        from tinyflux_pl.checkpoints.start import start_from
        from tinyflux_pl.methods import base_weights

        if self.config.init is not None:
            self._init, tensors = base_weights.start_weights(Path(self.config.init))
            where = base_weights.described(self._init)
            report = start_from(denoiser, tensors, where, complete=self.complete)
            if is_rank_zero():
                print("\n".join(report.lines(where)))
        elif self.complete:
            self._release = base_weights.of_release(self.config.model, denoiser.weight_files)

    @property
    def description(self) -> dict[str, Any]:
        """Part of a checkpoint's description: `base` if it needs them again, `init` elsewhere."""
        if self.complete:
            return {"base": dict(self._init or self._release or {})}
        return {} if self._init is None else {"init": dict(self._init)}
