"""The preflight of extract.py: stale groups, disk space, and a table of the missing rows."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.app.caches.replacement import is_unfinished
from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import cache_needs, disk_needs, tables
from tinyflux_pl.app.preflight.extraction_plan import extraction_plan
from tinyflux_pl.app.reporting import tables as printed


def check(parts: Parts, sources: Sequence[Source]) -> None:
    """Show the rows, bytes and time of the missing rows; nothing if the caches are complete.

    Nothing either after a rebuild that stopped in its last moment: the extraction mends it.
    Raises StaleCache for groups of other inputs, DiskFull and NotWritable. Reads every record
    first, so that a damaged one is named before an encoder is loaded.
    """
    caches = [cache for source in sources for cache in source.caches.values()]
    if any(is_unfinished(cache.folder) for cache in caches):
        return
    needs = [need for cache in caches for need in cache_needs.needs(cache)]
    if not any(need.rows for need in needs):
        return
    cache_needs.check_fingerprints(parts, sources)
    for cache in caches:
        cache.records.check()
    samples = cache_needs.sampled(parts, sources)
    plans = extraction_plan(parts, needs, sources, samples)
    disk_needs.require_space(disk_needs.cache_disk(needs, samples))
    table = tables.extraction(plans)
    printed.show(table.heading, table.rows)
