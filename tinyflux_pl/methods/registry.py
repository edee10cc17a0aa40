"""Methods by name, for saved models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.methods.controlnet import ControlNet
from tinyflux_pl.methods.few_step import FewStep
from tinyflux_pl.methods.few_step_lora import FewStepLoRA
from tinyflux_pl.methods.full import Full
from tinyflux_pl.methods.lora import LoRA
from tinyflux_pl.methods.method import Method
from tinyflux_pl.methods.textual_inversion import TextualInversion

METHODS: dict[str, type] = {
    method.name: method
    for method in (ControlNet, FewStep, FewStepLoRA, Full, LoRA, TextualInversion)
}


def build_method(name: str, config: Mapping[str, Any]) -> Method:
    """The method that `method.config()` described; ConfigError for an unknown name."""
    if name not in METHODS:
        cure = f"choose {', '.join(sorted(METHODS))}"
        raise ConfigError(f"no method {name!r}", where="methods.registry", cure=cure)
    return METHODS[name](**config)


def method_of(description: Mapping[str, Any]) -> Method:
    """The method of a checkpoint's description; those of full training do not name it."""
    node = description.get("method")
    return Full() if node is None else build_method(node["name"], node["config"])


def is_distilled(description: Mapping[str, Any]) -> bool:
    """True for a network or adapter that must be sampled in its checkpoint's number of steps."""
    return "teacher" in description or method_of(description).distills
