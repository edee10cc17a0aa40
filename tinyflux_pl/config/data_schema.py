"""Keys of the nodes `data` and `teacher`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinyflux_pl.config.bind import Keys, NotEmpty, Range
from tinyflux_pl.config.callback_schema import Count, Positive, Seed
from tinyflux_pl.core.errors import ConfigError

Text = Annotated[str, NotEmpty()]
Node = dict[str, Any]  # arguments of a class, checked against its signature
RECORDS = ("captions", "buckets", "folders")  # keys of `data` that reach records by ${data.KEY}


@dataclass(frozen=True)
class Source(Keys):
    """One dataset. The nodes of its splits are checked against their classes' signatures."""

    cache: Text
    train: Node
    validation: Node
    weight: Annotated[float, Range(above=0, most=1e30)] = 1.0
    experts: list[str] | None = None  # None: every expert of the run

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "validation"):
            if "_target_" not in (getattr(self, split) or {}):
                cure = "name the class of its records"
                raise ConfigError(f"{split} has no _target_", where=split, cure=cure)

    @property
    def splits(self) -> dict[str, Node]:
        """Split -> the node of its records."""
        return {"train": self.train, "validation": self.validation}


@dataclass(frozen=True)
class Captions(Keys):
    """Rules from captions to the texts that are cached (data.records.caption_rules)."""

    trigger: str = ""
    prefix: str = ""
    suffix: str = ""
    several: bool = False
    shuffles: Annotated[int, Range(least=0, most=63)] = 0
    keep_tags: Count = 1
    tag_dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    tag_separator: Text = ","


@dataclass(frozen=True)
class Buckets(Keys):
    """Frames of several aspect ratios (data.images.aspect_buckets)."""

    enabled: bool = False
    step: Positive = 64
    min_side: Positive | None = None
    max_side: Positive | None = None
    least: Positive = 1


@dataclass(frozen=True)
class FolderRate(Keys):
    """Repeats and weight of a folder's pictures (data.records.draw_rates)."""

    repeats: Annotated[int, Range(least=1, most=10_000)] = 1
    weight: Annotated[float, Range(above=0, most=1e30)] = 1.0


@dataclass(frozen=True)
class Data(Keys):
    """Keys that every dataset has; those of `RECORDS` only where its records read them."""

    open_ended = True
    name: str
    in_memory: bool
    evaluation_prompts: Count
    store_dtype: Literal["float16", "bfloat16", "float32"]
    shard_size: Positive
    sources: dict[str, Source]
    extraction_batch: Positive = 8
    image_size: Any = None  # a side or [height, width], in pixels; None: the codec knows it
    flip: bool = False  # draw pictures mirrored, too
    limit: Positive | None = None  # of each split, read and cached apart from the whole; None: all
    hint: Annotated[str | None, NotEmpty()] = None  # maps of a control branch: canny, or a folder
    captions: Captions | None = None
    buckets: Buckets | None = None
    folders: dict[str, FolderRate] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            cure = "choose data=shapes, folder, ..."
            raise ConfigError("no sources of data", where="sources", cure=cure)
        if self.image_size is not None:
            self._require_sides()

    def cache_of(self, source: str) -> Path:
        """The folder of a source's caches; with a `limit` a separate one next to that of all."""
        cache = Path(self.sources[source].cache)
        return cache if self.limit is None else cache.with_name(f"{cache.name}_of_{self.limit}")

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width) in pixels; None if the codec decides."""
        size = self.image_size
        if size is None:
            return None
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def _require_sides(self) -> None:
        size = self.image_size
        sides = size if isinstance(size, list) else [size, size]
        if [type(side) for side in sides] != [int, int]:
            cure = "give a side in pixels, or height and width: data.image_size=[48,64]"
            raise ConfigError(f"not an image size: {size!r}", where="image_size", cure=cure)


@dataclass(frozen=True)
class Teacher(Keys):
    """Keys that every choice of teachers has, beside a node for each expert."""

    open_ended = True
    width: Positive
    seed: Seed
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] | None = None
    checkpoint: str | None = None  # of an expert without a node and without features
    clock: Literal["matched", "literal"] = "matched"  # of the experts that do not name their own
    stats: Annotated[int, Range(least=3, most=4)] = 4  # of Sol

    def node(self, expert: str) -> Node:
        """The node of an expert's teacher; empty where there is none."""
        return self.plain.get(expert) or {}
