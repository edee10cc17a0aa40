"""Several processes that train one run: rank 0 fills the caches, the others wait for it."""

from __future__ import annotations

import time
from pathlib import Path

from tinyflux_pl.app.caches import sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import interruption
from tinyflux_pl.core.rank import is_rank_zero

PAUSE = 0.5  # seconds between two looks at the caches


def prepared(parts: Parts, records: sources.Records | None = None) -> list[sources.Source]:
    """The run's sources, of `records` where they are built already.

    Rank 0 makes what the caches lack; the others wait until they lack nothing.

    Every rank must see the same folder of caches.
    """
    while not is_rank_zero() and _lacking(parts):
        interruption.poll()
        time.sleep(PAUSE)
    return sources.prepare(parts, records=records)


def _lacking(parts: Parts) -> list[Path]:
    """The stores that are not whole yet."""
    roots = [
        (Path(node["cache"]) / split, parts.groups(name)[split])
        for name, node in parts.config["data"]["sources"].items()
        for split in sources.SPLITS
    ]
    return [
        root
        for root, names in roots
        if not (root / "manifest.json").exists() or not all(CacheStore.open(root).complete(name) for name in names)
    ]
