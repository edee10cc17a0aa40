"""Captions are read from one file or from text files next to images; bad ones are named."""

import json

import pytest

from tests.data.records.test_records import all_records, make
from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.caption_tables import read_captions


@pytest.mark.parametrize(
    "form", ["metadata.jsonl", "list", "mapping", "mapping of objects", "named"]
)
def test_reads_captions_from_one_file(tmp_path, form):
    make(tmp_path, captions=False)
    names = ["0.png", "2.PNG", "4.jpg", "sub/1.jpg", "./sub/3.png", "sub/5.PNG"]
    rows = [
        {"file_name": n, k: f"cap {n}"}
        for n, k in zip(names, ["text", "caption", "prompt"] * 2, strict=True)
    ]
    lines = "\n".join(json.dumps(r) for r in rows) + "\n\n"
    if form == "named":
        (tmp_path / "words.jsonl").write_text(lines)
    elif form == "metadata.jsonl":
        (tmp_path / form).write_text("\ufeff" + lines, encoding="utf-8")
    else:
        mapping = {n: f"cap {n}" if form == "mapping" else {"text": f"cap {n}"} for n in names}
        (tmp_path / "metadata.json").write_text(json.dumps(rows if form == "list" else mapping))
    records = all_records(tmp_path, caption_file="words.jsonl" if form == "named" else None)
    assert [r.caption for r in records] == [f"cap {n}" for n in names]


def test_missing_and_empty_captions_are_all_named_unless_allowed(tmp_path):
    make(tmp_path, 14, captions=False)
    (tmp_path / "0.txt").write_text("there")
    (tmp_path / "2.txt").write_text(" \n")
    with pytest.raises(CaptionError, match=r"13 files \(10\.jpg, .*, \.\.\.\) without a caption"):
        all_records(tmp_path)
    captions = [r.caption for r in all_records(tmp_path, allow_missing_captions=True)]
    assert sorted(captions) == [""] * 13 + ["there"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.jsonl", '{"file_name": "a.png", "text": "x"}\n{oops', "line 2"),
        ("a.jsonl", '{"text": "x"}', "no file_name"),
        ("a.jsonl", '{"file_name": "a.png", "text": 3}', "not text"),
        ("a.jsonl", '{"file_name": "a.png", "text": "\\ud800"}', "not text"),
        (
            "a.jsonl",
            '{"file_name": "a", "text": "x"}\n{"file_name": "a", "text": "y"}',
            "two captions",
        ),
        ("a.json", "3", "neither a list nor a mapping"),
        ("a.json", '["x"]', "not an object"),
        ("a.json", "[" * 100000, "not JSON"),
    ],
)
def test_malformed_caption_files_are_named_with_the_line(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(CaptionError, match=why) as caught:
        read_captions(tmp_path / name)
    assert name in str(caught.value)


def test_oversized_caption_files_are_not_read_into_memory(tmp_path):
    make(tmp_path, 1)
    with open(tmp_path / "0.txt", "wb") as file:
        file.truncate(2**40)  # a hole: a terabyte of nothing
    with pytest.raises(
        CaptionError, match=r"1,099,511,627,776 bytes of captions, more than 1,048,576"
    ):
        all_records(tmp_path)
