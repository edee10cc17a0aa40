"""A few records of a dataset: spread over all of it, and never taken for the whole."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.records.test_framed_pairs import put
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.data.records.limited import Limited
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.tasks.shapes.records import Shapes


@pytest.fixture
def pictures(tmp_path):
    for i in range(5):
        (tmp_path / f"f{i % 2}").mkdir(exist_ok=True)
        file = tmp_path / f"f{i % 2}" / f"{i}.png"
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(file)
        file.with_suffix(".txt").write_text(f"picture {i}")
    return tmp_path


def folder(root):
    return Folder(root, 8, split="all", folders={"f1": {"repeats": 3}})


def test_the_records_are_spread_evenly_and_are_those_of_the_dataset(pictures):
    records = folder(pictures)
    few = Limited(records, 2)
    assert few.rows == [0, 2] and len(few) == 2
    for index, row in enumerate(few.rows):
        assert few[index].caption == records[row].caption
        assert np.array_equal(few[index].image, records[row].image)
    assert [record.caption for record in few] == [few[0].caption, few[1].caption]
    assert few.sample_keys() == [records.sample_keys()[row] for row in few.rows]
    assert few.paths() == [records.paths()[row] for row in few.rows]
    assert few.captions() == [records.captions()[row] for row in few.rows]
    repeats, weights = records.draw_rates()
    assert few.draw_rates() == ([repeats[0], repeats[2]], [weights[0], weights[2]])
    with pytest.raises(IndexError):
        few[2]


def test_all_records_of_a_shorter_dataset_remain():
    records = Shapes("train", 6, 16, 0)
    few = Limited(records, 64)
    assert len(few) == 6 and few.captions() is None and few.paths() is None
    assert few.name == "shapes" and few.prompt_splits == records.prompt_splits


def test_the_fingerprint_is_neither_that_of_all_nor_of_another_number(pictures):
    records = folder(pictures)
    prints = [records.fingerprint(), *(Limited(records, n).fingerprint() for n in (2, 3))]
    assert all(one != other for i, one in enumerate(prints) for other in prints[:i])


def test_only_the_records_themselves_are_read_to_check_them(pictures):
    records = folder(pictures)
    few = Limited(records, 2)
    left_out = pictures / records.paths()[1]
    left_out.write_bytes(left_out.read_bytes()[:50])
    few.check()
    chosen = pictures / records.paths()[2]
    chosen.write_bytes(chosen.read_bytes()[:50])
    with pytest.raises(TinyFluxError):
        few.check()


def test_frames_count_the_records_that_are_left(tmp_path):
    root = put(tmp_path / "pairs", "ref", ((32, 16), (32, 16), (16, 32), (16, 16), (16, 32)))
    buckets = {"enabled": True, "step": 8}
    records = PairedImages(root, 16, split="all", buckets=buckets)
    few = Limited(records, 3)
    frames = [few[index].image.shape[:2] for index in range(3)]
    counted = [frame for frame, count in few.segments for _ in range(count)]
    assert len(records.segments) > 1 and [tuple(frame) for frame in counted] == frames


class Numbered(RecordSource):
    """Ten records with one precomputed column: their number."""

    name = "numbered"

    def __len__(self):
        return 10

    def __getitem__(self, index):
        raise NotImplementedError

    def fingerprint(self):
        return {"name": self.name}

    def columns(self, group, rows):
        return {"number": torch.tensor(rows)}


def test_columns_are_read_by_the_numbers_of_the_dataset():
    few = Limited(Numbered(), 5)
    assert few.columns("any", [1, 4])["number"].tolist() == [2, 8]
