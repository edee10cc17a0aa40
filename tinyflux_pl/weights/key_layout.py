"""The original key layout of a network, and its tensors under diffusers' keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights import key_prefixes
from tinyflux_pl.weights.dequantize import plain
from tinyflux_pl.weights.key_prefixes import NETWORK
from tinyflux_pl.weights.packed_rows import PackedRows

ONE_RELEASE = (
    "give weights and structure of one release; a single file takes its structure from the "
    "configuration"
)


@dataclass(frozen=True)
class KeyLayout:
    """The original key layout of a network and its conversion to that of diffusers.

    `prefixes` begin its keys inside a checkpoint, whose other parts are not read. A file is in this
    layout if one of the network's keys contains `mark`. `convert(tensors, structure)` renames,
    splits and reorders; unknown keys are returned as they are, to be reported as unexpected.
    """

    mark: str
    convert: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]]
    prefixes: tuple[str, ...] = NETWORK


def tensors_of_network(
    tensors: Mapping[str, Tensor],
    where: str,
    dtype: torch.dtype,
    original: KeyLayout | None,
    structure: dict[str, Any] | None,
    ignored: Sequence[str],
) -> dict[str, Tensor]:
    """This network's tensors under its own keys, dequantized."""
    prefixes = original.prefixes if original else NETWORK
    renamed = plain(key_prefixes.network_tensors(tensors, prefixes, where), dtype, where)
    if original is not None and any(original.mark in key for key in renamed):
        try:
            converted = original.convert(dict(renamed), structure or {})
            # some tables return None
            renamed = {key: value for key, value in converted.items() if value is not None}
        # a key, a split or a layer that is not there
        except (KeyError, RuntimeError, IndexError, ValueError) as error:
            what = f"not the complete original layout: {type(error).__name__} {str(error)[:200]}"
            raise CheckpointMismatch(what, where=where, cure=ONE_RELEASE) from error
    return {
        key: value
        for key, value in renamed.items()
        if not any(re.search(pattern, key) for pattern in ignored)
    }


def packed_rows_in(tensors: Mapping[str, Tensor], wide: Sequence[str]) -> dict[str, PackedRows]:
    """The packed rows by key, except those of submodules that stay in fp32."""
    return {
        key: value
        for key, value in tensors.items()
        if isinstance(value, PackedRows) and not is_wide(key, wide)
    }


def is_wide(key: str, wide: Sequence[str]) -> bool:
    """True for the key of a submodule that stays in fp32."""
    return not set(wide).isdisjoint(key.split("."))
