"""The prompts that a run draws: for its previews, and for its closing evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.data.images.resize_rules import as_images

if TYPE_CHECKING:
    from torch import Tensor

SEARCHED = 20_000  # captions of a split that are looked through for a prompt's own picture


def for_previews(config: dict[str, Any], sources: list[Source]) -> list[str]:
    """Those that were asked for, else some of every source: training prompts where it has them, or captions."""
    chosen = config["callbacks"]["preview"]
    if chosen.get("prompts"):
        return list(chosen["prompts"])
    sources = of_first_size(sources)
    per_source = -(-chosen["count"] // len(sources))
    prompts: list[str] = []
    for source in sources:
        records = source.train.records
        if records.prompt_splits:
            prompts += records.prompts(per_source, records.prompt_splits[0], config["seed"])
        else:
            store = source.validation.store
            prompts += store.captions(list(range(min(per_source, len(store)))))
    return prompts[: chosen["count"]]


def of_first_size(sources: list[Source]) -> list[Source]:
    """The leading sources whose pictures have the size of the first: one grid of previews has one size."""
    first = latent_shape(sources[0])
    return list(takewhile(lambda source: latent_shape(source) == first, sources))


def latent_shape(source: Source) -> tuple[int, ...]:
    """(C, H, W) of a source's latents."""
    return source.validation.store.layout(ENCODINGS)["latents"][1]


def pictures_of_previews(config: dict[str, Any], sources: list[Source], validation: Any) -> Any:
    """What previews are shown beside their words: the pictures of the samples whose captions they are."""
    from tinyflux_pl.sampling.images import ShownPictures, words_only

    if not any(name == "inpaint" or name.startswith("reference.") for name in validation.layout):
        return words_only
    sources = of_first_size(sources)
    count, start, rows = config["callbacks"]["preview"]["count"], 0, []
    for source in sources:
        held = len(source.validation.store)
        rows += range(start, start + min(-(-count // len(sources)), held))
        start += held
    return ShownPictures(validation.__getitems__(rows[:count]))


def own_pictures(sources: list[Source], prompts: Sequence[str]) -> Any:
    """Of data read from files, without a verifier, a picture (B, 3, H, W) that has each prompt for its caption.

    One to learn from where there is one, else one to validate with, else white. None for other data.
    """
    import torch

    if any(source.train.records.prompt_splits or not source.train.records.reads_files for source in sources):
        return None
    found: dict[str, Tensor] = {}
    for split in ("train", "validation"):
        for source in sources:
            store, records = source.caches[split].store, source.caches[split].records
            for index, caption in enumerate(store.captions(range(min(len(store), SEARCHED)))):
                if caption in prompts and caption not in found:
                    found[caption] = as_images(records[index].image)[0]
    if not found:
        return None
    white = torch.ones_like(next(iter(found.values())))
    return torch.stack([found.get(prompt, white) for prompt in prompts])


def for_evaluation(config: dict[str, Any], records: Any) -> dict[str, list[str]]:
    """Split -> prompts whose pictures can be read back; none where the data cannot read."""
    count = config["data"]["evaluation_prompts"]
    if not count:
        return {}
    return {split: records.prompts(count, split, config["seed"] + 1) for split in records.prompt_splits}
