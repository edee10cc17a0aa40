"""TinyFlux's own LoRA presets, as targets of methods.layer_plan.

They are written for its 15 double and 25 single blocks; in a smaller network the ranges that name
blocks which it lacks fit nothing.
"""

from __future__ import annotations

from typing import Any

from tinyflux_pl.core.errors import ConfigError

DOUBLE = "double_blocks.*.attn.*_*"
SINGLE_ATTENTION = "single_blocks.*.attn.*"
SINGLE_MLP = "single_blocks.*.mlp.*"
NUM_DOUBLE, NUM_SINGLE = 15, 25
LOWEST_RANK, HIGHEST_DOUBLE, HIGHEST_SINGLE = 8, 24, 32  # of `progressive`

Targets = list[dict[str, Any]]


def _all(patterns: tuple[str, ...], **values: Any) -> Targets:
    return [{"pattern": pattern, **values} for pattern in patterns]


def _character() -> Targets:
    """Ranks and rates that grow with depth: late blocks draw what a figure looks like."""
    thirds = (
        ("0-9", {"rank": 8, "lr_scale": 0.5}),
        ("10-19", {"rank": 16, "lr_scale": 1.0}),
        ("20-24", {"rank": 32, "lr_scale": 1.5}),
    )
    return [
        {"pattern": f"single_blocks.[{numbers}].{part}.*", "alpha": 16.0, **values}
        for numbers, values in thirds
        for part in ("attn", "mlp")
    ]


def _progressive() -> Targets:
    """Ranks that grow block by block."""
    kinds = (
        ("double_blocks", ("attn.*_*",), NUM_DOUBLE, HIGHEST_DOUBLE),
        ("single_blocks", ("attn.*", "mlp.*"), NUM_SINGLE, HIGHEST_SINGLE),
    )
    return [
        {
            "pattern": f"{kind}.[{i}].{part}",
            "rank": LOWEST_RANK + (highest - LOWEST_RANK) * i // (count - 1),
            "alpha": 16.0,
        }
        for kind, parts, count, highest in kinds
        for i in range(count)
        for part in parts
    ]


PRESETS: dict[str, Targets] = {
    "minimal": _all((SINGLE_ATTENTION,), rank=8, alpha=8.0),
    "standard": _all((SINGLE_ATTENTION, SINGLE_MLP), rank=16, alpha=16.0),
    "character": _character(),
    "concept": _all((DOUBLE,), rank=32, alpha=16.0),
    "full": _all((DOUBLE, SINGLE_ATTENTION, SINGLE_MLP), rank=16, alpha=16.0),
    "progressive": _progressive(),
}


def preset_targets(name: str) -> Targets:
    """The targets of a preset; ConfigError for an unknown one."""
    if name not in PRESETS:
        cure = f"choose {', '.join(PRESETS)}, or method.targets"
        raise ConfigError(f"no preset {name!r}", where="method.preset", cure=cure)
    return PRESETS[name]
