"""The contract of a training method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.sampling.loop import SamplerSettings


@runtime_checkable
class Method(Protocol):
    """Decides which parameters of a denoiser train, and on which objective (methods.registry).

    `needs_base`: a run must be given trained weights (init= or model.weights=). `adds_to_base`: it
    trains an addition to weights that stay as they are, so checkpoints refer to those instead of
    holding them. `exports_branch`: what it trained is a branch, which leaves without its base;
    `exports_adapter`: an adapter, as files of peft, diffusers and kohya hold it. `distills`: the
    network is drawn in the steps of its checkpoint's sampler.
    `reads`: groups of a run's configuration, otherwise of drawing alone, that decide
    what it learns. `unread`: dotted keys of a run's configuration that it does not read, each with
    the reason; `masks_unread`: why the masks of pictures do not weigh its loss, "" where they do.
    `base_precision`: the format of the frozen base's weights (methods.base_precision);
    `reads_weights`: why it reads the numbers of its base's weights, "" where blocks of a GGUF file
    do; `keeps_text`: the text encoders stay in memory beside the network. `teacher` is a frozen
    network in memory while one trains. `config()` is plain data from which
    `methods.registry.build_method(name, config)` rebuilds the method. A class that derives from
    this one inherits the defaults.
    """

    name: str
    needs_base: bool = False
    adds_to_base: bool = False
    exports_branch: bool = False
    exports_adapter: bool = False
    distills: bool = False
    reads: ClassVar[tuple[str, ...]] = ()
    unread: ClassVar[Mapping[str, str]] = {}
    masks_unread: str = ""
    base_precision: str | None = None
    reads_weights: str = "it trains them"
    keeps_text: bool = False
    teacher: nn.Module | None = None

    def prepare(self, denoiser: nn.Module) -> None:
        """Mark trainable parameters and add modules, in place; also on the meta device.

        ConfigError for a network that the method does not fit.
        """
        ...

    def free(self) -> None:
        """Free what `prepare` keeps beside a network that is gone; `prepare` may follow again."""

    def adapted(self) -> nn.Module | None:
        """The network prepared last, if `peft_layers.switched_off` turns it into its base."""
        return None

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """Names of the state dict's tensors that a checkpoint of a prepared denoiser holds."""
        return frozenset(denoiser.state_dict())

    def rates(self, denoiser: nn.Module) -> Mapping[str, float]:
        """Factors on the learning rate by parameter name, where they are not 1."""
        return {}

    def objective(self, objective: FlowObjective, settings: SamplerSettings) -> FlowObjective:
        """The objective of a prepared denoiser, from the run's own and its sampler settings."""
        return objective

    def sampling_settings(self, settings: SamplerSettings) -> SamplerSettings:
        """The settings to sample the trained network with, from those of the run's sampler."""
        return settings

    def set_text_encoder(self, text: TextEncoder) -> None:
        """Receive the run's text encoder, before `prepare`.

        ConfigError for one that does not go with the method.
        """

    def sampling_text(self, text: TextEncoder) -> TextEncoder:
        """The text encoder for sampling with the network that was prepared last."""
        return text

    def require_captions(self, captions: Iterable[str]) -> None:
        """Raise ConfigError for captions from which the method could learn nothing."""

    def export(self, denoiser: nn.Module, folder: Path) -> list[Path]:
        """Write files for other programs, besides checkpoints, into a run's folder."""
        return []

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}
