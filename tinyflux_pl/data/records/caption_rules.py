"""Captions of a picture -> the texts that are encoded: trigger word, prefix, shuffled tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.records.caption_text import lines_of

MAX_VARIANTS = 64  # texts of one picture: each is stored with its embedding


@dataclass(frozen=True)
class CaptionRules:
    """Rules from captions as written to the variants that a cache holds.

    The trigger stands first unless the caption has it as a word; `prefix` and `suffix` surround
    every caption; `shuffles` adds as many copies of each caption with its tags, which
    `tag_separator` divides, in another order, the first `keep_tags` in place and each of the rest
    left out with the probability `tag_dropout`. `several`: each line of a text file, and each row
    of a table, is a caption of its own.
    """

    trigger: str = ""
    prefix: str = ""
    suffix: str = ""
    several: bool = False
    shuffles: int = 0
    keep_tags: int = 1
    tag_dropout: float = 0.0
    tag_separator: str = ","

    def __post_init__(self) -> None:
        ranges = {
            "shuffles": (0 <= self.shuffles < MAX_VARIANTS, f"from 0 to {MAX_VARIANTS - 1}"),
            "keep_tags": (self.keep_tags >= 0, "at least 0"),
            "tag_dropout": (0 <= self.tag_dropout < 1, "at least 0 and below 1"),
            "tag_separator": (bool(self.tag_separator.strip()), "a sign such as ,"),
        }
        for name, (fits, range_) in ranges.items():
            if not fits:
                what = f"{name} is {getattr(self, name)!r}"
                raise ConfigError(what, where=f"data.captions.{name}", cure=range_)
        if self.tag_dropout and not self.shuffles:
            cure = "data.captions.shuffles=4: tags are left out in the shuffled copies"
            raise ConfigError(
                "tag_dropout without shuffles", where="data.captions.tag_dropout", cure=cure
            )

    @classmethod
    def of(cls, keys: Mapping[str, Any] | None) -> CaptionRules:
        """From the node data.captions; ConfigError for a key or a value that it has not."""
        option_names = {field.name for field in fields(cls)}
        for name in keys or {}:
            if name not in option_names:
                where, cure = f"data.captions.{name}", f"it takes {', '.join(sorted(option_names))}"
                raise ConfigError(f"nothing reads {name}", where=where, cure=cure)
        return cls(**(keys or {}))

    def written(self, text: str) -> tuple[str, ...]:
        """The captions in a text file: the whole, or each line that is not empty."""
        lines = lines_of(text) if self.several else [text]
        return tuple(line.strip() for line in lines if line.strip())

    def variants(self, captions: Sequence[str]) -> tuple[str, ...]:
        """The texts of a picture, each once, the first one being the caption that names it."""
        written = [caption for caption in captions if caption.strip()]
        texts = [self._framed(caption) for caption in written]
        for number in range(self.shuffles):
            texts += [self._framed(self._shuffled(caption, number)) for caption in written]
        return tuple(dict.fromkeys(texts))

    def _framed(self, caption: str) -> str:
        framed = f"{self.prefix}{caption}{self.suffix}"
        trigger = self.trigger.strip()
        if not trigger or _is_word_of(trigger, framed):
            return framed
        joined = f"{self.tag_separator} " if self._tags(caption)[1:] else " "
        return f"{trigger}{joined}{framed}"

    def _tags(self, caption: str) -> list[str]:
        tags = (tag.strip() for tag in caption.split(self.tag_separator))
        return [tag for tag in tags if tag]

    def _shuffled(self, caption: str, number: int) -> str:
        """A function of the caption and the number alone, so that caches outlive the run's seed."""
        tags = self._tags(caption)
        remaining, rest = tags[: self.keep_tags], tags[self.keep_tags :]
        generator = rng.generator(0, f"tags/{caption}", number)
        order = torch.randperm(len(rest), generator=generator).tolist()
        stays = torch.rand(len(rest), generator=generator) >= self.tag_dropout
        chosen = [rest[i] for i in order if stays[i]]
        return f"{self.tag_separator} ".join([*remaining, *chosen]) or caption


def _is_word_of(trigger: str, text: str) -> bool:
    """True if the trigger occurs in a text as a word of its own, not within a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", trigger) else ""
    after = r"(?!\w)" if re.search(r"\w$", trigger) else ""
    return re.search(f"{before}{re.escape(trigger)}{after}", text) is not None
