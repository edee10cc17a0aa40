"""Captions that the text encoder truncates, or finds no word in."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.data.records.finding import Finding, findings_of
from tinyflux_pl.data.records.record_source import RecordSource

BLOCK = 1024  # captions at once; no result depends on it
CUT = "caption cut"


def truncated_and_wordless(
    named: Sequence[tuple[str, str]], text: TextEncoder
) -> tuple[list[str], list[str]]:
    """Of (name, caption): the names of truncated captions, and of those without any word."""
    cut: list[str] = []
    wordless: list[str] = []
    for start in range(0, len(named), BLOCK):
        block = named[start : start + BLOCK]
        lengths = text.lengths([caption for _, caption in block])
        for (name, caption), length in zip(block, lengths, strict=True):
            if length.cut:
                cut.append(name)
            if not length.read and caption.strip():
                wordless.append(name)
    return cut, wordless


def check_captions(records: RecordSource, text: TextEncoder) -> list[Finding]:
    """Findings for truncated captions.

    CaptionError for wordless ones, unless captions may be missing.
    """
    named = records.captions()
    if named is None:
        return []
    cut, wordless = truncated_and_wordless(named, text)
    require_words(wordless, records)
    length = text.text_spec.length
    cure = f"shorten them: the text encoder reads {length} tokens, what follows is not learnt"
    return findings_of(CUT, cut, cure)


def require_words(wordless: Sequence[str], records: RecordSource) -> None:
    """Raise CaptionError naming captions in which the text encoder finds nothing to read."""
    if wordless and not records.allow_missing_captions:
        names = ", ".join(wordless[:10]) + (", ..." if len(wordless) > 10 else "")
        what = f"{len(wordless):,} captions without a word that the text encoder reads ({names})"
        cure = "write words, or train these without a caption: data.allow_missing_captions=true"
        raise CaptionError(what, where=records.name, cure=cure)
