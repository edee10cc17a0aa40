"""Interleaving of groups in proportion to their weights, evenly spread over a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def apportion(weights: Sequence[float], length: int, least: int = 0) -> np.ndarray:
    """Turns (G,) of each group in a round of `length`, by the method of largest remainders.

    Each has `least` turns or more, which all of them together have to fit.
    """
    weight = np.asarray(weights, dtype=np.float64)
    exact = weight / weight.sum() * length
    quota = np.maximum(np.floor(exact).astype(np.int64), least)
    rest = length - int(quota.sum())
    if rest > 0:
        quota[np.argsort(-(exact - quota), kind="stable")[:rest]] += 1
    while quota.sum() > length:
        quota[np.argmax(quota)] -= 1
    return quota


def interleave(quota: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group of each slot of a round, and that group's turns before it in the round."""
    times = np.concatenate([(np.arange(q) + 0.5) / q for q in quota])
    owner = np.repeat(np.arange(len(quota)), quota)
    ordinal = np.concatenate([np.arange(q) for q in quota])
    order = np.lexsort((owner, times))
    return owner[order], ordinal[order]
