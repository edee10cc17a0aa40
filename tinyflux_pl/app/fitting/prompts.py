"""Prompts of previews and of the final evaluation, and the matching pictures of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.hint_forms import HINT
from tinyflux_pl.data.images.fit import fit
from tinyflux_pl.data.images.resize_rules import image_tensor
from tinyflux_pl.data.training_captions import MAX_CAPTIONS, TrainingCaptions

if TYPE_CHECKING:
    from torch import Tensor

READ_AT_ONCE = 1024  # captions
MAX_SEARCHED = 20_000  # captions of a split that are searched for a prompt's own picture


def for_previews(config: Train, sources: list[Source]) -> list[str]:
    """The configured prompts, else some of every source: task prompts, or captions."""
    keys = config.callbacks.preview
    if keys.prompts:
        return list(keys.prompts)
    sources = with_first_size(sources)
    per_source = -(-keys.count // len(sources))
    prompts: list[str] = []
    for source in sources:
        records = source.train.records
        if records.prompt_splits and config.data.hint is None:
            prompts += records.prompts(per_source, records.prompt_splits[0], config.seed)
        else:
            prompts += source.validation.store.captions(_of_one_shape(source)[:per_source])
    return prompts[: keys.count]


def for_evaluation(config: Train, records: Any) -> dict[str, list[str]]:
    """Split -> prompts that the data's verifier can read.

    Empty for data without one, and where pictures follow maps, which such prompts have not.
    """
    count = config.data.evaluation_prompts
    if not count or config.data.hint is not None:
        return {}
    splits = records.prompt_splits
    return {split: records.prompts(count, split, config.seed + 1) for split in splits}


def with_first_size(sources: list[Source]) -> list[Source]:
    """The leading sources with pictures of the first one's size: a preview grid has one size."""
    first = latent_shape(sources[0])
    return list(takewhile(lambda source: latent_shape(source) == first, sources))


def latent_shape(source: Source) -> tuple[int, ...]:
    """(C, H, W) of a source's latents; with several frames, of the most frequent in validation."""
    return _largest_segment(source)[1]["latents"][1]


def _of_one_shape(source: Source) -> range:
    """The validation rows of that shape."""
    return _largest_segment(source)[0]


def _largest_segment(source: Source) -> tuple[range, Any]:
    segments = source.validation.store.segment_layouts(ENCODINGS)
    return max(segments, key=lambda segment: len(segment[0]))


def preview_conditions(config: Train, sources: list[Source], validation: Any) -> Any:
    """Image conditions of previews: references, masks or maps of one set of samples."""
    from tinyflux_pl.sampling.images import SamplePictures, text_only

    names = validation.layout
    if not any(name in ("inpaint", HINT) or name.startswith("reference.") for name in names):
        return text_only
    sources = with_first_size(sources)
    count = config.callbacks.preview.count
    per_source = -(-count // len(sources))
    rows: list[int] = []
    start = 0
    for source in sources:
        rows += [start + row for row in _of_one_shape(source)[:per_source]]
        start += len(source.validation.store)
    return SamplePictures(validation.__getitems__(rows[:count]))


def dataset_pictures(
    sources: list[Source], prompts: Sequence[str], size: tuple[int, int]
) -> Tensor | None:
    """For each prompt that is a caption of the data its picture (B, 3, H, W), else white.

    Pictures of other frames are fitted to `size`. Training pictures come before validation
    pictures. None for data made by rule or without pictures, and where no prompt is a caption.
    """
    import torch

    trains = [source.train.records for source in sources]
    if any(r.prompt_splits or not r.reads_files or not r.has_pictures for r in trains):
        return None
    pictures: dict[str, Tensor] = {}
    for split in ("train", "validation"):
        for source in sources:
            store, records = source.caches[split].store, source.caches[split].records
            captions = store.captions(range(min(len(store), MAX_SEARCHED)))
            for index, caption in enumerate(captions):
                if caption in prompts and caption not in pictures:
                    pictures[caption] = image_tensor(fit(records[index].image, size))[0]
    if not pictures:
        return None
    white = torch.ones_like(next(iter(pictures.values())))
    return torch.stack([pictures.get(prompt, white) for prompt in prompts])


def all_captions(sources: list[Source]) -> Iterator[str]:
    """Every training caption, read in chunks of a shard's length."""
    for source in sources:
        store = source.train.store
        for start in range(0, len(store), READ_AT_ONCE):
            yield from store.captions(range(start, min(start + READ_AT_ONCE, len(store))))


def training_captions(sources: list[Source]) -> TrainingCaptions:
    """Grammars, examples and words of the sources; long sources are sampled evenly."""
    captions = {}
    for source in sources:
        store = source.train.store
        every = -(-len(store) // MAX_CAPTIONS)
        variants = store.caption_variants(range(0, len(store), every))
        sampled = [caption for captions in variants for caption in captions]
        total = len(sampled) if every == 1 else len(store)
        captions[source.name] = source.train.records, sampled, total
    return TrainingCaptions.of(captions)
