"""Keys that another key has to enable: refused without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Switch:
    """`keys` of a node are read if its `key` is in `on`, or not in `off`."""

    keys: tuple[str, ...]
    key: str
    cure: str
    on: tuple[Any, ...] = ()
    off: tuple[Any, ...] = ()

    def is_on(self, value: Any) -> bool:
        """True if this value of `key` enables the other keys."""
        return value in self.on if self.on else value not in self.off


EMPTY = (None, (), [])
SWITCHES = {
    "guidance": (
        Switch(("kind", "interval", "curve", "negative"), "scale", "3, say", off=(0, 1)),
        Switch(("eta", "norm_limit", "momentum"), "kind", "apg", on=("apg",)),
        Switch(("zero_until",), "kind", "cfg_zero", on=("cfg_zero",)),
        Switch(("peak",), "curve", "triangle or cosine", off=("constant",)),
        Switch(("threshold_bound",), "threshold", "0.995, say", off=(0,)),
        Switch(("skip_scale", "skip_interval"), "skip_layers", "[7,8,9], say", off=EMPTY),
    ),
    "sampler": (Switch(("offset",), "spacing", "leading", on=("leading", "leading_open")),),
    "cache": (Switch(("threshold", "longest"), "kind", "first_block or teacache", off=("none",)),),
    "engine": (Switch(("balance",), "calibrate", "FILE", off=EMPTY),),
}


def check(
    overrides: Sequence[str],
    node: str,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    """Raise ConfigError for a key of the command line that the node's other values disable.

    `values` are the node's, with those of a checkpoint or a release for what is left open. A key
    that says what it is by `defaults` changes nothing, and passes.
    """
    set_keys = {line.lstrip("+~").partition("=")[0] for line in overrides}
    for switch in SWITCHES[node]:
        value = values[switch.key]
        for name in () if switch.is_on(value) else switch.keys:
            key = f"{node}.{name}"
            if key in set_keys and (name not in defaults or values[name] != defaults[name]):
                what = f"nothing reads {key} where {node}.{switch.key} is {value}"
                cure = f"{node}.{switch.key}={switch.cure}, or leave {key}= out"
                raise ConfigError(what, where=key, cure=cure)
