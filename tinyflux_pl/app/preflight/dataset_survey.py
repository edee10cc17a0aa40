"""Every record of a run's data read once, before a cache is made of it: what is wrong, and of what sizes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.app.caches.sources import SPLITS, build_records
from tinyflux_pl.cache.staleness import plain
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DataError, DiskFull, ImageError
from tinyflux_pl.core.fingerprint import hash_json
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.images.size_histogram import OriginalSizes
from tinyflux_pl.data.records.audit import Audit, audit
from tinyflux_pl.data.records.caption_lengths import require_words

VERSION = 3  # raise it when a survey holds more than it did
KEPT = "audit.json"  # in the cache's folder
# What a strict reader refuses at once; taken out, all that is wrong is seen together.
LENIENT = ("skip_bad", "allow_missing_captions")


@dataclass
class Survey:
    """One split of one source."""

    source: str
    split: str
    audit: Audit
    sizes: OriginalSizes
    kept: bool = False  # as it was found when the cache was made

    @property
    def name(self) -> str:
        """source/split."""
        return f"{self.source}/{self.split}"


class _Watched:
    """Records that note what passes by."""

    def __init__(self, records: Any, sizes: OriginalSizes) -> None:
        self.records, self.sizes = records, sizes
        self.skipped, self.name = list(records.skipped), records.name
        self.pictures, self.fit_mode = True, sizes.mode

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        record = self.records[index]
        self.pictures = record.image.dtype == np.uint8  # sequences have no size, and may well share a target
        if self.pictures:
            self.sizes.add(*record.attributes.get("original_size", record.image.shape[:2]))
        return record

    def fingerprint(self) -> dict[str, Any]:
        return self.records.fingerprint()


def records_of(
    node: dict[str, Any], lenient: bool = False, write: bool = True
) -> tuple[dict[str, Any], DataError | None]:
    """The records of each split of a source; with `lenient`, what else is readable where they refuse, and the refusal.

    Without `write` they remember nothing on disk of what they decode.
    """
    nodes = {split: dict(node[split]) for split in SPLITS}
    for each in nodes.values():
        if "decoded" in each and not write:
            each["decoded"] = None
    try:
        return build_records(nodes), None
    except DataError as error:
        keys = [key for key in LENIENT if key in node[SPLITS[0]]]
        if not lenient or not keys:
            raise
        for each in nodes.values():
            each |= dict.fromkeys(keys, True) | ({"decoded": None} if "decoded" in each else {})
        try:
            return build_records(nodes), error
        except DataError:
            raise error from None


def survey(
    source: str, split: str, records: Any, frame: tuple[int, int], cache: Path, text: TextEncoder | None = None
) -> Survey:
    """Read every record, unless what an earlier run found of the same ones lies with the cache."""
    sizes = OriginalSizes(frame, records.fit_mode)
    known = _kept(cache / KEPT, records, text)
    if known is not None:
        sizes.restore(known["sizes"])
        skipped = list(records.skipped)
        found = Audit(**{**known["audit"], "unreadable": skipped, "total": len(records) + len(skipped)})
        return Survey(source, split, found, sizes, kept=True)
    watched = _Watched(records, sizes)
    found = audit(watched, text)
    if not watched.pictures:
        found = replace(found, duplicates=[], contradictions=[], tiny=[])
    return Survey(source, split, found, sizes)


def keep(found: Survey, records: Any, cache: Path, text: TextEncoder | None = None) -> None:
    """Leave a survey with the finished cache of these records; a cache that others own stays as it is."""
    if found.kept or not cache.is_dir() or not os.access(cache, os.W_OK):
        return
    told = {"audit": asdict(found.audit), "sizes": found.sizes.state()}
    content = files.sealed({**told, "of": _identity(records, text)})
    if len(content) <= files.JSON_LIMIT:  # what is longer could not be read back; found anew it only takes time
        with suppress(OSError, DiskFull):  # it only saves time
            files.write_bytes(cache / KEPT, content)


def require_readable(found: Survey, records: Any) -> None:
    """Raise ImageError naming what could not be read; files left out by the user's leave are not meant.

    DataError where none of the masks marks anything, CaptionError for captions of which no word is read.
    """
    if found.split == "train" and found.audit.masked and len(found.audit.empty_masks) == found.audit.masked:
        raise nothing_marked(found.audit.masked, f"data.sources.{found.source}.{found.split}")
    require_words(found.audit.wordless, records)
    skipped = set(records.skipped)
    bad = [line for line in found.audit.unreadable if line not in skipped]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ImageError(
            f"{len(bad)} unreadable: {'; '.join(bad[:10])}{more}",
            where=f"data.sources.{found.source}.{found.split}",
            cure="replace or remove them"
            + (", or leave out unreadable images: data.skip_bad=true" if records.skip_bad is not None else ""),
        )


def _identity(records: Any, text: TextEncoder | None) -> str:
    read_by = None if text is None else plain(text.fingerprint())
    return hash_json([VERSION, [field.name for field in fields(Audit)], plain(records.fingerprint()), read_by])


def _kept(path: Path, records: Any, text: TextEncoder | None) -> dict[str, Any] | None:
    """What was kept, if it is whole and of these records; it only saves time, so anything else is found anew."""
    try:
        known = files.read_sealed(path)
    except (OSError, ValueError):
        return None
    return known if known["of"] == _identity(records, text) else None
