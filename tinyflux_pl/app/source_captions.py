"""The captions of a run's sources, read from their caches, as its checkpoints will keep them."""

from __future__ import annotations

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.data.training_captions import MAX_CAPTIONS, TrainingCaptions


def of(sources: list[Source]) -> TrainingCaptions:
    """Their grammars, examples and words; of a very long source every n-th caption is read."""
    found = {}
    for source in sources:
        store = source.train.store
        every = -(-len(store) // MAX_CAPTIONS)
        found[source.name] = source.train.records, store.captions(range(0, len(store), every)), len(store)
    return TrainingCaptions.of(found)
