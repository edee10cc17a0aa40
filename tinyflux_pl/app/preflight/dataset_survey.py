"""A survey of a run's data: every record is read once before the first cache is made from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.app.caches.sources import SPLITS, build_records
from tinyflux_pl.cache.sealed_json import AUDIT_FILE
from tinyflux_pl.cache.staleness import plain
from tinyflux_pl.config.schema import Node
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DataError, DiskFull, ImageError
from tinyflux_pl.core.fingerprint import hash_json
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.images.size_histogram import OriginalSizes
from tinyflux_pl.data.records.audit import Audit, audit
from tinyflux_pl.data.records.caption_lengths import require_words

VERSION = 3  # raised whenever a survey gains content
MAX_NAMED = 10  # unreadable files that an error names
# With these set, strict records do not raise at the first problem, so that all are seen together.
LENIENT_KEYS = ("skip_bad", "allow_missing_captions")


@dataclass
class Survey:
    """The audit and picture sizes of one split of one source."""

    source: str
    split: str
    audit: Audit
    sizes: OriginalSizes
    stored: bool = False  # read from the cache's folder

    @property
    def name(self) -> str:
        """The survey's key, source/split."""
        return f"{self.source}/{self.split}"


class _SizeRecorder:
    """Records that count the size of every picture read through them."""

    def __init__(self, records: Any, sizes: OriginalSizes) -> None:
        self.records = records
        self.sizes = sizes
        self.skipped = list(records.skipped)
        self.name = records.name
        self.fit_mode = sizes.mode
        self.has_pictures = True

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        record = self.records[index]
        # Sequences have no size, and may share a target; columns alone have no picture.
        self.has_pictures = record.image.dtype == np.uint8 and record.has_picture
        if self.has_pictures:
            frame = record.image.shape[:2]
            self.sizes.add(*record.attributes.get("original_size", frame), frame)
        return record

    def fingerprint(self) -> dict[str, Any]:
        return self.records.fingerprint()


def records_of(
    splits: Mapping[str, Any],
    lenient: bool = False,
    write: bool = True,
    hint: str | None = None,
    limit: int | None = None,
) -> tuple[dict[str, Any], DataError | None]:
    """The records of each split of a source, from their nodes.

    With `lenient`, records that refuse are replaced by those still readable, and the refusal is
    returned with them. Without `write`, nothing about decoded images is stored. `hint` and `limit`
    are those of `data`.
    """
    nodes: dict[str, Node] = {split: dict(splits[split]) for split in SPLITS}
    for node in nodes.values():
        if "decoded" in node and not write:
            node["decoded"] = None
    try:
        return build_records(nodes, hint, limit), None
    except DataError as error:
        keys = [key for key in LENIENT_KEYS if key in nodes[SPLITS[0]]]
        if not lenient or not keys:
            raise
        for node in nodes.values():
            node |= dict.fromkeys(keys, True)
            if "decoded" in node:
                node["decoded"] = None
        try:
            return build_records(nodes, hint, limit), error
        except DataError:
            raise error from None


def survey(
    source: str,
    split: str,
    records: Any,
    frame: tuple[int, int],
    cache: Path,
    text: TextEncoder | None = None,
) -> Survey:
    """Read every record, unless a survey of the same records is stored with the cache.

    `frame` is the (height, width) that pictures are fitted to.
    """
    sizes = OriginalSizes(frame, records.fit_mode)
    stored = _read_stored(cache / AUDIT_FILE, records, text)
    if stored is not None:
        sizes.restore(stored["sizes"])
        skipped = list(records.skipped)
        now = {"unreadable": skipped, "total": len(records) + len(skipped)}
        return Survey(source, split, Audit(**{**stored["audit"], **now}), sizes, stored=True)
    recorder = _SizeRecorder(records, sizes)
    result = audit(recorder, text)
    if not recorder.has_pictures:
        result = replace(result, duplicates=[], contradictions=[], tiny=[])
    return Survey(source, split, result, sizes)


def save_survey(survey: Survey, records: Any, cache: Path, text: TextEncoder | None = None) -> None:
    """Store a survey with the finished cache of these records; skipped for a read-only cache."""
    if survey.stored or not cache.is_dir() or not os.access(cache, os.W_OK):
        return
    values = {"audit": asdict(survey.audit), "sizes": survey.sizes.state()}
    content = files.sealed({**values, "of": _identity(records, text)})
    if len(content) <= files.JSON_LIMIT:  # longer files are not read back
        with suppress(OSError, DiskFull):  # only saves time
            files.write_bytes(cache / AUDIT_FILE, content)


def require_readable(survey: Survey, records: Any) -> None:
    """Raise ImageError naming unreadable files that no option leaves out.

    DataError if no mask marks anything, CaptionError for captions without a readable word.
    """
    result, where = survey.audit, f"data.sources.{survey.source}.{survey.split}"
    if survey.split == "train" and result.masked and len(result.empty_masks) == result.masked:
        raise nothing_marked(result.masked, where)
    require_words(result.wordless, records)
    skipped = set(records.skipped)
    bad = [line for line in result.unreadable if line not in skipped]
    if bad:
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        cure = "replace or remove them"
        if records.skip_bad is not None:
            cure += ", or leave out unreadable images: data.skip_bad=true"
        what = f"{len(bad)} unreadable: {'; '.join(bad[:MAX_NAMED])}{more}"
        raise ImageError(what, where=where, cure=cure)


def _identity(records: Any, text: TextEncoder | None) -> str:
    """Hash of all that a survey depends on."""
    encoder = None if text is None else plain(text.fingerprint())
    names = [field.name for field in fields(Audit)]
    return hash_json([VERSION, names, plain(records.fingerprint()), encoder])


def _read_stored(path: Path, records: Any, text: TextEncoder | None) -> dict[str, Any] | None:
    """The stored survey of these records; None if it is damaged or of others."""
    try:
        stored = files.read_sealed(path)
    except (OSError, ValueError):
        return None
    return stored if stored["of"] == _identity(records, text) else None
