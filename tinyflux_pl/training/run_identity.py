"""Identity of a run in a dashboard: name, group, tags and id, kept by a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tinyflux_pl.training.stateful_callback import StatefulCallback

KEY = "RunIdentity"  # of checkpoints


@dataclass(frozen=True)
class Identity:
    """Name, group and tags of a run; `id` is W&B's, empty where no logger needs one."""

    name: str
    id: str = ""
    group: str | None = None
    tags: tuple[str, ...] = ()


class RunIdentity(StatefulCallback):
    """Keeps the identity in checkpoints, from which `saved_identity` reads it before training."""

    checkpoint_key = KEY

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def state(self) -> dict[str, Any]:
        return {**asdict(self.identity), "tags": list(self.identity.tags)}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing: loggers are built with the identity, before a checkpoint's state is restored."""


def saved_identity(training_state: Mapping[str, Any]) -> Identity | None:
    """The identity in a checkpoint's training state, if the run had one."""
    state = training_state.get("callbacks", {}).get(KEY)
    if state is None:
        return None
    return Identity(state["name"], state["id"], state["group"], tuple(state["tags"]))
