"""Captions that are cut are counted; one in which the encoder finds no word counts as missing."""

import warnings

import pytest
from PIL import Image

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.core.types import PromptLength
from tinyflux_pl.data.records.audit import audit
from tinyflux_pl.data.records.caption_lengths import CUT, check_captions
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.extraction.columns import columns_of
from tinyflux_pl.text.hashed_words import HashedWords

LONG = " ".join(f"word{i}" for i in range(9))
TEXT = HashedWords(width=8, length=4)


@pytest.fixture
def root(tmp_path):
    for i, caption in enumerate(("a red circle", LONG, "红色的猫坐着", "...", "🔴")):
        Image.new("RGB", (16, 16), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(caption)
    return tmp_path


def test_prompt_lengths_count_read_and_truncated_words():
    lengths = TEXT.lengths(["a red circle", LONG, "...", ""])
    assert lengths == [
        PromptLength(3, 0),
        PromptLength(4, 5),
        PromptLength(0, 0),
        PromptLength(0, 0),
    ]


def test_the_audit_counts_truncated_and_wordless_captions(root):
    findings = audit(Folder(root, 16, split="all"), TEXT)
    assert findings.cut_captions == ["1.png", "2.png"] and findings.wordless == ["3.png"]
    assert findings.missing_captions == ["3.png"] and not findings.sound


def test_a_wordless_caption_is_refused_like_a_missing_one(root):
    with pytest.raises(CaptionError, match=r"1 captions without a word .*3\.png"):
        check_captions(Folder(root, 16, split="all"), TEXT)
    (finding,) = check_captions(Folder(root, 16, split="all", allow_missing_captions=True), TEXT)
    assert (finding.kind, finding.names) == (CUT, ("1.png", "2.png")) and "4 tokens" in finding.cure


def test_extraction_reports_truncation_once(root):
    records = Folder(root, 16, split="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns_of([records[1]], PixelFolding(2), TEXT, TEXT.encode(["a"]).tokens.dtype, "cpu")
    with pytest.warns(UserWarning, match="is cut at 4"):
        TEXT.encode([LONG])  # a prompt of one's own is told at once
