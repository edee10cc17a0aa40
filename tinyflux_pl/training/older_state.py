"""An optimizer's state of an older run, whose network trained parameters that nothing reads and that are frozen now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def fitted(state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """torch's state without the parameters that no step has changed, where `groups` have that many fewer.

    A parameter that nothing reads has no gradient, and so no state: to leave it out loses nothing. Whatever else
    does not fit stays as it is, for the optimizer to refuse.
    """
    kept, saved = state["state"], state["param_groups"]
    if len(saved) != len(groups):
        return dict(state)
    return {**state, "param_groups": [_without(s, kept, len(g["params"])) for s, g in zip(saved, groups, strict=True)]}


def _without(saved: Mapping[str, Any], kept: Mapping[Any, Any], count: int) -> dict[str, Any]:
    """The saved group with `count` parameters, if just those that go have no state, or none has any."""
    numbers = saved["params"]
    stepped = [number for number in numbers if number in kept]
    if not stepped:
        stepped = numbers[:count]
    return {**saved, "params": stepped} if len(stepped) == count < len(numbers) else dict(saved)
