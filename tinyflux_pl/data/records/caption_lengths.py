"""How much of a dataset's captions the text encoder reads: which are cut, and of which nothing is left."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.data.records.finding import Finding, found
from tinyflux_pl.data.records.record_source import RecordSource

BLOCK = 1024  # captions at once; no result depends on it
CUT = "caption cut"


def unread(named: Sequence[tuple[str, str]], text: TextEncoder) -> tuple[list[str], list[str]]:
    """Of (name, caption): the names of captions that are cut, and of those without any word."""
    cut, wordless = [], []
    for start in range(0, len(named), BLOCK):
        block = named[start : start + BLOCK]
        lengths = text.lengths([caption for _, caption in block])
        for (name, caption), length in zip(block, lengths, strict=True):
            if length.cut:
                cut.append(name)
            if not length.read and caption.strip():
                wordless.append(name)
    return cut, wordless


def judge(records: RecordSource, text: TextEncoder) -> list[Finding]:
    """The captions that are cut; CaptionError for some of which nothing is left, unless those may lack."""
    named = records.captions()
    if named is None:
        return []
    cut, wordless = unread(named, text)
    require_words(wordless, records)
    length = text.text_spec.length
    cure = f"shorten them: the text encoder reads {length} tokens, what follows is not learnt"
    return found(CUT, cut, cure)


def require_words(wordless: Sequence[str], records: RecordSource) -> None:
    """Raise CaptionError naming captions in which the text encoder finds nothing to read."""
    if wordless and not records.allow_missing_captions:
        shown = ", ".join(wordless[:10]) + (", ..." if len(wordless) > 10 else "")
        what = f"{len(wordless):,} captions without a word that the text encoder reads ({shown})"
        cure = "write words, or train these without a caption: data.allow_missing_captions=true"
        raise CaptionError(what, where=records.name, cure=cure)
