"""The layers that get an adapter, each with its rank, alpha, learning rate and dropout."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.methods.layer_patterns import matching, require_hit

Target = str | Mapping[str, Any]
WHERE = "method.targets"
MOST = 4096  # of a rank and of a depth


@dataclass(frozen=True)
class LayerPlan:
    """An adapter's shape at one layer: `depth` products B A of `rank`, each scaled by alpha / rank.

    The learning rate of the layer is multiplied by `lr_scale`.
    """

    rank: int = 16
    alpha: float = 16.0
    lr_scale: float = 1.0
    depth: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, accepted, range_of in (
            ("rank", 1 <= self.rank <= MOST, f"an integer from 1 to {MOST}"),
            ("depth", 1 <= self.depth <= MOST, f"an integer from 1 to {MOST}"),
            ("alpha", 0 < self.alpha < float("inf"), "a number above 0"),
            ("lr_scale", 0 <= self.lr_scale < float("inf"), "a number of 0 or more"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
        ):
            if not accepted:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", where=f"method.{name}", cure=range_of
                )

    @property
    def total_rank(self) -> int:
        """Rank of the sum of the products, as one product."""
        return self.rank * self.depth

    @property
    def total_alpha(self) -> float:
        """The alpha that scales this one product as each of them."""
        return self.alpha * self.depth


KEYS: dict[str, tuple[type, ...]] = {
    "rank": (int,),
    "alpha": (int, float),
    "lr_scale": (int, float),
    "depth": (int,),
    "dropout": (int, float),
    "enabled": (bool,),
}


def plan_layers(
    layers: Iterable[str],
    targets: Sequence[Target],
    default: LayerPlan,
    *,
    all_must_hit: bool = True,
) -> dict[str, LayerPlan]:
    """Name -> plan of every layer that is adapted, in the network's order.

    A target is a pattern, or a mapping with a `pattern` and the values that its layers have instead
    of `default`; later targets change what earlier ones said, and `enabled: false` leaves layers
    out. Raises ConfigError for a pattern that fits no layer (of any: `all_must_hit`), and for
    unknown keys.
    """
    plans: dict[str, LayerPlan] = {}
    layers = list(layers)
    for target in targets:
        pattern, values = _target(target)
        hit = matching(pattern, layers)
        if all_must_hit:
            require_hit(pattern, hit, layers)
        enabled = values.pop("enabled", True)
        for name in hit:
            if enabled:
                plans[name] = dataclasses.replace(plans.get(name, default), **values)
            else:
                plans.pop(name, None)
    if not plans:
        raise ConfigError(
            "no layer is left to adapt",
            where=WHERE,
            cure="name layers of this network: method.targets=[PATTERN,...], or null for the "
            "family's own",
        )
    return {name: plans[name] for name in layers if name in plans}


def _target(target: Target) -> tuple[str, dict[str, Any]]:
    """The pattern and the values of a target; ConfigError for a key or a type that is not one."""
    if isinstance(target, str):
        return target, {}
    values = dict(target)
    pattern = values.pop("pattern", None)
    if not isinstance(pattern, str):
        cure = "a pattern, or {pattern: NAME, rank: 8, ...}"
        raise ConfigError(f"a target without a pattern: {dict(target)}", where=WHERE, cure=cure)
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            cure = f"did you mean {near[0]}?" if near else f"keys are pattern, {', '.join(KEYS)}"
            raise ConfigError(f"a target has no {key!r}", where=WHERE, cure=cure)
        if type(value) not in KEYS[key]:
            kinds = " or ".join(kind.__name__ for kind in KEYS[key])
            raise ConfigError(f"{key} is {value!r}", where=f"{WHERE}: {pattern}", cure=kinds)
    return pattern, values
