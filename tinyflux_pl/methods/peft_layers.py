"""Adapters inside a network, by peft: attached under a name, listed, switched off."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import ConfigError, MissingDependency
from tinyflux_pl.methods.layer_plan import LayerPlan

TRAINED = "default"  # peft's name of the adapter that a run trains


@dataclass(frozen=True)
class Kind:
    """Form and initialisation of the product: the options of methods.lora.LoRA."""

    rslora: bool = False
    dora: bool = False
    lokr: bool = False
    init: str = "kaiming"

    def __post_init__(self) -> None:
        if self.lokr and (self.rslora or self.dora or self.init != "kaiming"):
            raise ConfigError(
                "lokr cannot be combined with rslora, dora or another init",
                where="method.lokr",
                cure="choose one of them",
            )


def attach(
    network: nn.Module, plans: Mapping[str, LayerPlan], kind: Kind, adapter: str = TRAINED
) -> None:
    """Put an adapter of fp32 beside each layer that `plans` names, in place.

    The layers are called by their full names in `network`. Raises MissingDependency without peft.
    """
    peft = _peft()
    if kind.lokr and any(plan.dropout for plan in plans.values()):
        raise ConfigError("lokr has no dropout", where="method.dropout", cure="method.dropout=0")
    common: dict[str, Any] = {
        "target_modules": _any_of(plans),
        "rank_pattern": _patterns({name: plan.total_rank for name, plan in plans.items()}),
        "alpha_pattern": _patterns({name: plan.total_alpha for name, plan in plans.items()}),
    }
    if kind.lokr:
        config = peft.LoKrConfig(**common)
    else:
        start = True if kind.init == "kaiming" else kind.init
        config = peft.LoraConfig(
            **common, init_lora_weights=start, use_rslora=kind.rslora, use_dora=kind.dora
        )
    peft.inject_adapter_in_model(config, network, adapter_name=adapter)
    del network.peft_config  # peft's note for itself; it would warn of a second adapter
    modules = dict(network.named_modules())
    for name, plan in plans.items():
        layer: Any = modules[name]
        if plan.dropout:
            layer.lora_dropout[adapter] = nn.Dropout(plan.dropout)
        for _, parameter in _parameters_of(layer, adapter):
            parameter.data = parameter.data.float()


def _any_of(names: Iterable[str]) -> str:
    return f"(?:{'|'.join(re.escape(name) for name in names)})"


def _patterns(values: Mapping[str, float]) -> dict[str, float]:
    """One pattern for all layers of a value: peft tries every pattern on every layer."""
    names: dict[float, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return {f"^{_any_of(alike)}": value for value, alike in names.items()}


def parameter_names(network: nn.Module, layer: str, adapter: str = TRAINED) -> list[str]:
    """Names in `network` of the adapter's parameters beside one layer."""
    return [f"{layer}.{name}" for name, _ in _parameters_of(network.get_submodule(layer), adapter)]


def adapted(network: nn.Module) -> dict[str, Any]:
    """Full name -> layer of peft, for all layers with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def activate(network: nn.Module, adapters: list[str]) -> None:
    """Enable these adapters together; none of them trains."""
    for layer in adapted(network).values():
        layer.set_adapter(adapters)
    network.requires_grad_(False)


@contextmanager
def switched_off(network: nn.Module) -> Generator[Any]:
    """Inside, the network predicts as its base does in evaluation mode: also without dropout.

    Yields the network.
    """
    layers = list(adapted(network).values())
    training = [module for module in network.modules() if module.training]
    network.eval()
    for layer in layers:
        # peft's enable_adapters would turn requires_grad too, while the student's graph is alive
        layer._disable_adapters = True
    try:
        yield network
    finally:
        for layer in layers:
            layer._disable_adapters = False
        for module in training:
            module.training = True


def _parameters_of(layer: nn.Module, adapter: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Name within the layer -> parameter of one adapter, without the layer's base."""
    for name, parameter in layer.named_parameters():
        if not name.startswith("base_layer.") and adapter in name.split("."):
            yield name, parameter


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"adapters need the package {error.name}", where="method=lora", cure="pip install peft"
        ) from error
    return peft
