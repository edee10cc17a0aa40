"""The training captions of a run, read from its records before anything is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.core.progress import track
from tinyflux_pl.methods.method import Method


def require_captions(method: Method, sources: Sequence[Source]) -> None:
    """Raise ConfigError for captions from which the method can learn nothing."""
    method.require_captions(captions(sources))


def captions(sources: Sequence[Source]) -> Iterator[str]:
    """Every caption, lazily; captions of generated data cost drawing their pictures."""
    for source in sources:
        records = source.train.records
        named = records.captions()
        if named is not None:
            yield from (caption for _, caption in named)
            continue
        title = f"{source.train.title}: captions"
        for index in track(range(len(records)), title, len(records), "record", leave=False):
            yield from records[index].captions
