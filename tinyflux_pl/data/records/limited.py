"""A few records of a dataset, for trial runs that need not read or cache all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from tinyflux_pl.core.progress import track
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.records.record_source import RecordSource


class Limited:
    """A RecordSource cut to `limit` records, spread evenly over its order.

    Its fingerprint is another than that of all records: no cache holds some of both.
    """

    def __init__(self, records: RecordSource, limit: int) -> None:
        total = len(records)
        self.records, self.limit = records, limit
        self.rows = [k * total // limit for k in range(limit)] if limit < total else range(total)

    def __getattr__(self, name: str) -> Any:
        """Every other attribute of the records."""
        if name.startswith("__") or name == "records":  # asked for by copies, before there are any
            raise AttributeError(name)
        return getattr(self.records, name)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Record]:
        return (self.records[row] for row in self.rows)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.records[self.rows[index]]

    @property
    def segments(self) -> Sequence[tuple[tuple[int, int] | None, int]]:
        """The remaining frames, each with the number of its records."""
        segments = self.records.segments
        ends = list(accumulate(count for _, count in segments))
        starts = [0, *ends[:-1]]
        counts = [
            sum(start <= row < end for row in self.rows)
            for start, end in zip(starts, ends, strict=True)
        ]
        named = zip(segments, counts, strict=True)
        return [(frame, count) for (frame, _), count in named if count]

    def draw_rates(self) -> tuple[Sequence[int], Sequence[float]] | None:
        """The rates of these records; None if all of the source's are 1."""
        rates = self.records.draw_rates()
        if rates is None:
            return None
        repeats, weights = rates
        return [repeats[row] for row in self.rows], [weights[row] for row in self.rows]

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the records, with the limit."""
        return {**self.records.fingerprint(), "limit": [len(self), len(self.records)]}

    def sample_keys(self) -> list[Any] | None:
        """The keys of these records; None if only reading can tell them."""
        keys = self.records.sample_keys()
        return None if keys is None else [keys[row] for row in self.rows]

    def paths(self) -> list[str] | None:
        """The files of these records; None for generated pictures."""
        paths = self.records.paths()
        return None if paths is None else [paths[row] for row in self.rows]

    def captions(self) -> list[tuple[str, str]] | None:
        """(name, caption) of these records; None if no person wrote them."""
        captions, paths = self.records.captions(), self.paths()
        if captions is None:
            return None
        if paths is None or len(captions) == len(self.records):  # one of each
            return [captions[row] for row in self.rows]
        names = set(paths)  # several of a picture
        return [(name, caption) for name, caption in captions if name in names]

    def columns(self, group: str, rows: Sequence[int]) -> dict[str, Tensor]:
        """Columns of a precomputed group, of these records by their own numbers."""
        return self.records.columns(group, [self.rows[row] for row in rows])

    def check(self) -> None:
        """Read each of these records, and no other; DataError for the first that is damaged.

        Without pictures there is more to check than a record shows: then all of them are read.
        """
        if not self.records.reads_files or not self.records.has_pictures:
            self.records.check()
            return
        for index in track(range(len(self)), f"{self.name}: check", len(self), "record"):
            self[index]
