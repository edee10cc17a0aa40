"""Webdataset shards, parquet files and saved Arrow datasets become the records of a folder."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import CaptionError, DataError, ImageError
from tinyflux_pl.data.records.folder import Folder

pa = pytest.importorskip("pyarrow")


def picture(colour, size=(20, 24), mode="RGB"):
    content = io.BytesIO()
    Image.new(mode, size, colour).save(content, "PNG")
    return content.getvalue()


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def rows(count=4):
    return {
        "image": [{"bytes": picture((40 * i, 90, 30)), "path": f"{i}.png"} for i in range(count)],
        "text": [f"caption {i}" for i in range(count)],
        "width": [20] * count,
    }


def saved(root, data, kind):
    root.mkdir(exist_ok=True)
    table = pa.table(data)
    if kind == "parquet":
        import pyarrow.parquet as parquet

        parquet.write_table(table, root / "train-00000.parquet", row_group_size=2)
        return
    file = str(root / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (root / "state.json").write_text(json.dumps(state))
    (root / "dataset_info.json").write_text("{}")


def read(root, **options):
    return Folder(root, **{"size": 16, "split": "all", **options})


def test_a_shard_gives_the_records_that_its_files_would_give(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "shards").mkdir()
    members = {}
    for i in range(4):
        content = picture((40 * i, 90, 30))
        members[f"{i:03d}.png"] = content
        (tmp_path / "files" / f"{i:03d}.png").write_bytes(content)
        (tmp_path / "files" / f"{i:03d}.txt").write_text(f"caption {i}")
        name, text = (f"{i:03d}.txt", f"caption {i}")
        if i % 2:
            name, text = f"{i:03d}.json", json.dumps({"caption": f"caption {i}", "width": 20})
        members[name] = text.encode()
    first = dict(list(members.items())[:4])
    shard(tmp_path / "shards" / "a.tar", first)
    shard(tmp_path / "shards" / "b.tar", {k: v for k, v in members.items() if k not in first})
    files, shards = read(tmp_path / "files"), read(tmp_path / "shards")
    assert [r.caption for r in shards] == [r.caption for r in files]
    assert [r.sample_id for r in shards] == [r.sample_id for r in files]
    assert shards.fingerprint() == files.fingerprint() and not shards.findings
    assert shards[3].source == "b.tar/003.png"
    shards.check()


def test_masks_several_captions_and_left_over_members_of_a_shard(tmp_path):
    members = {"a.png": picture("red"), "a.mask.png": picture(255, mode="L"), "a.txt": b"red"}
    members |= {"b.png": picture("blue"), "b.mask.png": picture(255, mode="L")}
    members |= {"b.json": b'{"text": ["one", "two"]}', "b.cls": b"3", "c.txt": b"alone"}
    shard(tmp_path / "a.tar", members)
    records = read(tmp_path)
    by_name = {r.source: r for r in records}
    assert by_name["a.tar/b.png"].captions == ("one", "two")
    assert all(r.mask is not None and r.mask.all() for r in records)
    kinds = {finding.kind: finding.names for finding in records.findings}
    assert kinds == {"not used": ("a.tar/b.cls",), "caption alone": ("a.tar/c",)}
    shard(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"x", "a.json": b'{"text": "y"}'})
    with pytest.raises(CaptionError, match="differ"):
        read(tmp_path)


def test_damaged_shards_are_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    with pytest.raises(DataError, match=r"not a readable tar"):
        read(tmp_path)
    shard(tmp_path / "a.tar", {"a.png": b"<html>", "a.txt": b"x"})
    with pytest.raises(ImageError, match=r"a\.tar/a\.png: a web page"):
        read(tmp_path)
    shard(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"x"})
    records = read(tmp_path)
    shard(tmp_path / "a.tar", {"a.png": picture("blue"), "a.txt": b"x"})
    with pytest.raises(DataError, match="changed after it was listed"):
        records[0]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_of_tables_are_records(tmp_path, kind):
    saved(tmp_path, rows(5), kind)
    records = read(tmp_path)
    records.check()
    assert [r.caption for r in records] == [f"caption {i}" for i in range(5)]
    assert [int(records[i].image[0, 0, 0]) for i in (4, 0, 3)] == [160, 0, 120]
    assert {f.kind: f.names for f in records.findings}["column not read"] == ("width",)
    data = rows(2) | {"text": [["one", "two"], None]}
    data["mask"] = [picture(255, mode="L"), picture(0, mode="L")]
    saved(tmp_path, data, kind)
    with pytest.raises(CaptionError, match="without a caption"):
        read(tmp_path)
    records = read(tmp_path, allow_missing_captions=True)
    assert records[0].captions == ("one", "two") and records[1].caption == ""
    assert records[0].mask.all() and not np.asarray(records[1].mask).any()


def test_tables_without_pictures_and_dictionaries_of_datasets_are_refused(tmp_path):
    saved(tmp_path / "words", {"text": ["x"]}, "parquet")
    with pytest.raises(DataError, match="no column of pictures among text"):
        read(tmp_path / "words")
    saved(
        tmp_path / "paths", {"image": [{"bytes": None, "path": "/etc/x"}], "text": ["x"]}, "arrow"
    )
    with pytest.raises(ImageError, match="no bytes of a picture"):
        read(tmp_path / "paths")
    both = tmp_path / "both"
    both.mkdir()
    saved(both / "train", rows(2), "arrow")
    (both / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DataError) as caught:
        read(both)
    assert f"data.root={both}/train" in caught.value.cure
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a parquet file"):
        read(tmp_path / "bad")
    shard(tmp_path / "bad" / "a.tar", {})
    with pytest.raises(DataError, match="two datasets"):
        read(tmp_path / "bad")


@pytest.mark.parametrize("twice", ["image", "text", "width"])
def test_two_columns_of_one_name_are_refused(twice, tmp_path):
    import pyarrow.parquet as parquet

    columns = [pa.array([value]) for value in (picture("red"), "x", picture("red"))]
    table = pa.Table.from_arrays(columns, names=["image", "text", twice])
    if twice == "width":
        table = table.append_column("width", pa.array([3]))
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"two columns are called {twice}[\s\S]*a\.parquet"):
        read(tmp_path)


def test_a_file_that_a_saved_dataset_names_and_lacks_is_named(tmp_path):
    saved(tmp_path, rows(), "arrow")
    (tmp_path / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"the file is not there[\s\S]*data-00000-of-00001\.arrow"):
        read(tmp_path)


def test_a_selection_of_rows_that_is_not_followed_is_refused(tmp_path):
    saved(tmp_path, rows(), "arrow")
    state = json.loads((tmp_path / "state.json").read_text())
    state["_indices_data_files"] = []
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert len(read(tmp_path)) == 4
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"a selection of the rows[\s\S]*flatten_indices"):
        read(tmp_path)


def test_rows_that_pyarrow_cannot_read_are_an_error_that_names_the_file(tmp_path):
    saved(tmp_path, rows(), "parquet")
    file = tmp_path / "train-00000.parquet"
    content = bytearray(file.read_bytes())
    content[4:64] = bytes(60)  # the header of the first page
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"not a parquet file[\s\S]*train-00000\.parquet"):
        read(tmp_path)


def test_members_of_a_shard_that_nothing_reads_are_named(tmp_path):
    mask = {"a.mask.png": picture(255, mode="L"), "a.Mask.png": picture(0, mode="L")}
    described = json.dumps({"caption": "x", "url": "u"}).encode()
    members = {"a.png": picture("red"), "a.json": described, "._a.png": b"", **mask}
    shard(tmp_path / "0.tar", members)
    records = read(tmp_path)
    assert records[0].caption == "x" and records[0].mask.all()
    assert {finding.kind: finding.names for finding in records.findings} == {
        "not used": ("0.tar/._a.png", "0.tar/a.Mask.png"),
    }


def test_a_key_of_another_name_is_hinted_at_where_captions_are_missing(tmp_path):
    shard(tmp_path / "0.tar", {"a.png": picture("red"), "a.json": b'{"TEXT": "x"}'})
    with pytest.raises(CaptionError, match=r"without a caption[\s\S]*column not read: 1: TEXT"):
        read(tmp_path)
