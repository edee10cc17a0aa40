"""The columns and values of a table of pairs are read, or named."""

import pytest

from tests.data.records.test_image_pairs import listed, picture
from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.image_pair_rows import read_rows
from tinyflux_pl.data.records.image_pairs import PairedImages


def test_columns_of_a_table_that_nothing_reads_are_named(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 1)
    row = {"target": "./a.png", "reference": "b.png", "text": "x", "prompt": "y", "score": 1}
    records = PairedImages(listed(tmp_path, row), 8, split="all")
    assert [(f.kind, f.names) for f in records.findings] == [
        ("column not read", ("prompt", "score"))
    ]
    assert records[0].caption == "x"


def test_a_row_may_have_several_captions_and_null_is_none(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    root = listed(
        tmp_path,
        {"target": "a.png", "reference": "b.png", "caption": ["x", " ", "y"], "mask": None},
        {"target": "b.png", "reference": "a.png", "caption": None},
    )
    records = PairedImages(root, 8, split="all", allow_missing_captions=True)
    assert [record.captions for record in records] == [("x", "y"), ("",)]
    with pytest.raises(CaptionError, match=r"1 pairs without a caption \(b\.png"):
        PairedImages(root, 8, split="all")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"reference": "b.png"}, r"no target in \['reference'\]"),
        ({"target": ["a.png"], "reference": "b.png"}, r"target is \['a.png'\]"),
        ({"target": "a.png", "mask": ["b.png"]}, r"mask is \['b.png'\]"),
        ({"target": "a.png", "reference": [3]}, "reference is 3"),
        ({"target": "a.png", "reference": "b.png", "caption": 3}, "caption of a.png is not text"),
    ],
)
def test_the_value_that_does_not_fit_is_named(row, says, tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(CaptionError, match=says):
        read_rows(listed(tmp_path, row))
