"""Callbacks whose state is part of a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from lightning.pytorch import Callback


class StatefulCallback(Callback, ABC):
    """A callback that continues from a checkpoint as if the run had never stopped.

    `checkpoint_key` names its state in checkpoints. It is written down, not derived from the class:
    a class may be renamed, a key that is in files may not. The two keys in use equal the names that
    their classes had when checkpoints were keyed by class, so that those checkpoints still open.
    """

    checkpoint_key: ClassVar[str]

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and plain types, as a checkpoint stores them."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""


def collect_states(callbacks: Iterable[Callback]) -> dict[str, dict[str, Any]]:
    """checkpoint_key -> state of every stateful callback."""
    return {c.checkpoint_key: c.state() for c in callbacks if isinstance(c, StatefulCallback)}


def restore_states(callbacks: Iterable[Callback], states: dict[str, dict[str, Any]]) -> None:
    """Restore each stateful callback that has an entry in `states`; others start fresh."""
    for callback in callbacks:
        if isinstance(callback, StatefulCallback) and callback.checkpoint_key in states:
            callback.restore(states[callback.checkpoint_key])
