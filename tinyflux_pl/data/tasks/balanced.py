"""Random choices in equal numbers."""

from __future__ import annotations

from typing import Any

import numpy as np


def balanced(choices: tuple[Any, ...], count: int, order: np.random.Generator) -> list[Any]:
    """`count` of the choices in random order, each as often as the others, within one."""
    whole = [order.permutation(len(choices)) for _ in range(-(-count // len(choices)))]
    return [choices[int(i)] for i in np.concatenate(whole)[:count]] if count else []
