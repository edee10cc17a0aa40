"""Tables as spreadsheets and scripts write them: read, or refused with the reason."""

import pytest
from PIL import Image

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.caption_tables import captions_by_image
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.table_rows import rows_of


def rows(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return [row for _, row in rows_of(tmp_path / name)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'file_name;text\na.png;"x; y"\n'),
        ("t.csv", "file_name\ttext\na.png\tx; y\n"),
        ("t.tsv", "file_name\ttext\na.png\tx; y\n"),
        ("t.tsv", "file_name,text\na.png,x; y\n"),
        ("t.csv", "\n\r\n file_name , text\n\na.png,x; y\n\n"),
        ("t.csv", "file_name,text\ra.png,x; y\r"),
    ],
)
def test_the_line_of_names_tells_the_separator(name, text, tmp_path):
    assert rows(tmp_path, text, name) == [{"file_name": "a.png", "text": "x; y"}]


@pytest.mark.parametrize("names", ["file_name,text,text", "file_name, file_name,text"])
def test_two_columns_of_one_name_are_refused(names, tmp_path):
    with pytest.raises(CaptionError, match=r"two columns are called (text|file_name)"):
        rows(tmp_path, f"{names}\na.png,x,y\n")


def test_columns_without_a_name_are_numbered(tmp_path):
    (row,) = rows(tmp_path, ",file_name,text,\n0,a.png,x,z\n")
    assert row == {"(column 1)": "0", "file_name": "a.png", "text": "x", "(column 4)": "z"}


@pytest.mark.parametrize("text", ["a.png", "a.png,x,y"])
def test_a_row_of_another_length_is_refused_by_its_line(text, tmp_path):
    with pytest.raises(CaptionError, match=r"not 2 columns[\s\S]*t\.csv, line 3"):
        rows(tmp_path, f"file_name,text\nb.png,x\n{text}\n")


def test_a_mapping_may_hold_null_and_no_second_name(tmp_path):
    assert rows(tmp_path, '{"a.png": null}', "t.json") == [{"file_name": "a.png", "text": None}]
    with pytest.raises(CaptionError, match=r"two names: a\.png and 'b\.png'[\s\S]*t\.json, a\.png"):
        rows(tmp_path, '{"a.png": {"file_name": "b.png"}}', "t.json")
    with pytest.raises(CaptionError, match=r"not an object[\s\S]*t\.json, a\.png"):
        rows(tmp_path, '{"a.png": 3}', "t.json")


def test_two_spellings_of_one_path_may_have_several_captions(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("file_name,text\na.png,x\n./a.png,y\na.png,x\n")
    read = captions_by_image(tmp_path, tmp_path / "t.csv", several=True)
    assert read.captions == {"a.png": ("x", "y")}
    with pytest.raises(CaptionError, match=r"a\.png has two captions"):
        captions_by_image(tmp_path, tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["A.TXT", "A.Txt", "A.CAPTION"])
def test_suffixes_of_captions_count_in_any_case(name, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "A.PNG")
    (tmp_path / name).write_text("a cat")
    records = Folder(tmp_path, 8, split="all")
    assert records[0].caption == "a cat" and not records.findings
