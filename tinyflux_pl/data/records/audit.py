"""Audit of a dataset before training: unreadable files, duplicates, captions, masks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.data.images.size_histogram import enlarged
from tinyflux_pl.data.records import caption_lengths
from tinyflux_pl.data.records.record_source import RecordSource


@dataclass(frozen=True)
class Audit:
    """Findings by kind: source names, or groups of source names for copies of one picture."""

    total: int
    readable: int
    unreadable: list[str] = field(default_factory=list)
    missing_captions: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    contradictions: list[list[str]] = field(default_factory=list)  # copies with different captions
    tiny: list[str] = field(default_factory=list)  # enlarged to fit
    wordless: list[str] = field(default_factory=list)  # captions of which no word is read
    cut_captions: list[str] = field(default_factory=list)  # longer than the text encoder reads
    masked: int = 0  # records with a mask or an inpaint mask
    texts: int = 0  # captions of all records, several of one counted each
    empty_masks: list[str] = field(default_factory=list)  # in which nothing is marked

    @property
    def sound(self) -> bool:
        """True if there is no finding."""
        return not (
            self.unreadable
            or self.missing_captions
            or self.duplicates
            or self.tiny
            or self.empty_masks
            or self.cut_captions
        )


def audit(records: RecordSource, text: TextEncoder | None = None) -> Audit:
    """Read every record once, and check which captions `text` reads.

    Use a Folder with skip_bad and allow_missing_captions to get all findings at once.
    """
    unreadable: list[str] = list(records.skipped)
    missing: list[str] = []
    tiny: list[str] = []
    named: list[tuple[str, str]] = []
    readable = masked = 0
    empty: list[str] = []
    copies: dict[str, list[tuple[str, str]]] = {}
    for index in track(
        range(len(records)), f"{records.name}: read", len(records), "record", leave=False
    ):
        try:
            record = records[index]
        except DataError as error:
            unreadable.append(f"{error.where or index}: {error.what}")
            continue
        source = record.source or str(index)
        named += [(source, caption) for caption in record.captions]
        if not record.caption.strip():
            missing.append(source)
        mask = record.inpaint_mask if record.mask is None else record.mask
        masked += mask is not None
        if mask is not None and not mask.any():
            empty.append(source)
        readable += 1
        if not record.has_picture:
            continue
        frame = record.image.shape[:2]
        if enlarged(record.attributes.get("original_size", frame), frame, records.fit_mode):
            tiny.append(source)
        copies.setdefault(hashlib.sha256(record.image.tobytes()).hexdigest(), []).append(
            (source, record.caption)
        )
    cut, wordless = (
        ([], []) if text is None else caption_lengths.truncated_and_wordless(named, text)
    )
    repeated = [group for group in copies.values() if len(group) > 1]
    return Audit(
        total=len(records) + len(records.skipped),
        readable=readable,
        unreadable=unreadable,
        missing_captions=[*missing, *wordless],
        wordless=wordless,
        cut_captions=list(dict.fromkeys(cut)),
        duplicates=[[source for source, _ in group] for group in repeated],
        contradictions=[
            [source for source, _ in group] for group in repeated if len({c for _, c in group}) > 1
        ],
        tiny=tiny,
        masked=masked,
        texts=sum(bool(caption.strip()) for _, caption in named),
        empty_masks=empty,
    )
