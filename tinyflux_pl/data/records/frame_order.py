"""Records fitted to several frames, sorted by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tinyflux_pl.data.images.aspect_buckets import AspectBuckets, Frame

T = TypeVar("T")


def by_frame(
    entries: Sequence[T], sizes: Iterable[Frame], buckets: AspectBuckets
) -> tuple[list[T], list[Frame]]:
    """The entries, whose pictures have these (height, width), with the frame of each."""
    frames = buckets.assign(sizes)
    order = sorted(range(len(entries)), key=lambda i: (frames[i], i))
    return [entries[i] for i in order], [frames[i] for i in order]


def segments_of(frames: Sequence[Frame]) -> list[tuple[Frame | None, int]]:
    """Frames in the order of the records, with the number of records of each."""
    counts = Counter(frames)
    return [(frame, counts[frame]) for frame in dict.fromkeys(frames)]
