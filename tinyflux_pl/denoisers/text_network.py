"""A trainable text encoder's network inside the denoiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

SUBMODULE = "text_network"


def attach(denoiser: nn.Module, network: nn.Module | None) -> None:
    """Put a text encoder's network before the denoiser, which then reads token ids as text.

    None: the text is embedded already.
    """
    if network is None:
        return
    denoiser.add_module(SUBMODULE, network)
    denoiser.register_forward_pre_hook(_embedded)


def _embedded(denoiser: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments x_t, t, cond of a denoiser with the text as the network embeds it."""
    x_t, t, cond = arguments
    return x_t, t, replace(cond, text=denoiser.get_submodule(SUBMODULE)(cond.text))
