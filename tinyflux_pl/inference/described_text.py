"""The trainable text encoder's network inside the denoiser of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tinyflux_pl.denoisers import text_network
from tinyflux_pl.text.registry import build_text


def with_text_network(denoiser: nn.Module, text: Mapping[str, Any]) -> nn.Module:
    """The denoiser, with the described encoder's network if that was trained in it."""
    text_network.attach(denoiser, build_text(text["name"], text["config"]).trained_network())
    return denoiser
