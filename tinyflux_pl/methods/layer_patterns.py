"""Patterns of layer names: `*` within one part of a name, [20-24] and [0,5] numbers, [qkv] letters.

A pattern has as many parts as the name that it matches, as in TinyFlux's own LoRA files. One
without wildcards also matches the end of a name: to_q is every to_q.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from tinyflux_pl.core.errors import ConfigError

NETWORKS = ("net.", "unet.")  # prefixes of a denoiser's names for those of its network
_NUMBERS = re.compile(r"\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]")
_WILDCARDS = "*["
MOST_NUMBERS = 1000  # in one range


def linear_layers(denoiser: nn.Module) -> dict[str, str]:
    """Name within the network -> name within the denoiser, of each linear layer, in order.

    A layer that has an adapter already is found under its own name.
    """
    names = {}
    for full_name, module in denoiser.named_modules():
        inside = full_name.split(".lora_")[0]  # an adapter's matrices are layers too
        if isinstance(module, nn.Linear) and inside == full_name:
            name = full_name.removesuffix(".base_layer")
            names[short_name(name)] = name
    return names


def short_name(name: str) -> str:
    """A denoiser's name of a layer or parameter as its network calls it."""
    prefix = next((prefix for prefix in NETWORKS if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def matches(pattern: str, name: str) -> bool:
    """True if the pattern fits the whole name, or without wildcards its last parts."""
    if not any(mark in pattern for mark in _WILDCARDS):
        return name == pattern or name.endswith(f".{pattern}")
    return re.fullmatch(_expression(pattern), name) is not None


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern matches."""
    return [name for name in names if matches(pattern, name)]


def require_hit(pattern: str, hit: Iterable[str], layers: Iterable[str]) -> None:
    """Raise ConfigError for a pattern that matches no layer, with examples of layers."""
    if any(True for _ in hit):
        return
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in layers))
    raise ConfigError(
        f"no linear layer is called {pattern}",
        where="method.targets",
        cure=f"layers are {', '.join(kinds[:8])}{', ...' if len(kinds) > 8 else ''}; "
        "* stands for one part of a name",
    )


def _expression(pattern: str) -> str:
    """The pattern as a regular expression."""
    pieces = []
    for piece in re.split(r"(\[[^\]]*\]|\*)", pattern):
        if piece == "*":
            pieces.append(r"[^.]+")
        elif numbers := _NUMBERS.fullmatch(piece):
            pieces.append(f"(?:{'|'.join(_numbers(numbers[1]))})")
        elif re.fullmatch(r"\[\w+\]", piece):
            pieces.append(piece)
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def _numbers(listed: str) -> list[str]:
    """ "0,5-7" -> 0 5 6 7; ConfigError for a range that is too long to be one of layers."""
    names: list[str] = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        count = int(last or first) - int(first) + 1
        if count > MOST_NUMBERS:
            cure = f"at most {MOST_NUMBERS} numbers"
            raise ConfigError(f"the range [{part}]", where="method.targets", cure=cure)
        names += [str(int(first) + i) for i in range(count)]
    return names
