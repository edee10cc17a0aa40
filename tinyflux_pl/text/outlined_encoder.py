"""A pretrained text encoder on the meta device, for memory plans."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tinyflux_pl.text import simulation


def outlined(encoder: Any, networks: Mapping[str, nn.Module]) -> Any:
    """The encoder with skeletons in its dtype and a byte tokenizer: it needs no file."""
    other = copy.copy(encoder)
    other.words = ()
    other._forget()
    tokenizer, dtype = simulation.tokenizer(), getattr(torch, encoder.dtype)
    for key, network in networks.items():
        other._models[key] = (tokenizer, nn.Module.to(network, dtype).eval())
    other.sequential = False  # which would free the skeletons
    return other.to("meta")
