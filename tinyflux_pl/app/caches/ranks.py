"""Caches of a run of several processes: rank 0 fills them, the other ranks wait for it."""

from __future__ import annotations

import time
from pathlib import Path

from tinyflux_pl.app.caches import prepare
from tinyflux_pl.app.caches.source_cache import is_complete
from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.components import Parts
from tinyflux_pl.core import interruption
from tinyflux_pl.core.rank import is_rank_zero

POLL_SECONDS = 0.5


def prepare_on_rank_zero(parts: Parts, sources: list[Source] | None = None) -> list[Source]:
    """The run's sources with complete caches; `sources` where this rank has opened them already.

    Rank 0 fills the caches; the others wait until they are complete. Every rank must see the same
    folder.
    """
    while not is_rank_zero() and _incomplete_stores(parts):
        interruption.poll()
        time.sleep(POLL_SECONDS)
    return prepare.prepare(parts, sources=sources)


def _incomplete_stores(parts: Parts) -> list[Path]:
    """Folders of the stores that lack shards."""
    stores = [
        (parts.config.data.cache_of(name) / split, groups)
        for name in parts.config.data.sources
        for split, groups in parts.groups(name).items()
    ]
    return [folder for folder, groups in stores if not is_complete(folder, groups)]
