"""Optimizer state of older runs, which trained parameters that are frozen now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def without_unused_parameters(
    state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """torch's optimizer state without never-updated parameters, where `groups` has that many fewer.

    A parameter that no forward pass reads has no gradient and so no state: dropping it loses
    nothing. Any other mismatch is left as it is, for the optimizer to refuse.
    """
    saved = state["param_groups"]
    if len(saved) != len(groups):
        return dict(state)
    fitted = [
        _fit_group(old, state["state"], len(new["params"]))
        for old, new in zip(saved, groups, strict=True)
    ]
    return {**state, "param_groups": fitted}


def _fit_group(group: Mapping[str, Any], states: Mapping[Any, Any], count: int) -> dict[str, Any]:
    """The saved group cut to `count` parameters, if those dropped have no state or none has any."""
    indices = group["params"]
    updated = [index for index in indices if index in states] or indices[:count]
    if len(updated) == count < len(indices):
        return {**group, "params": updated}
    return dict(group)
