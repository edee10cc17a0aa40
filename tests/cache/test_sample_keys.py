"""A sample's key follows everything that is made into its entries, and nothing else."""

import dataclasses
import pickle

import numpy as np
import pytest

from tests.stores import keys, written
from tinyflux_pl.cache.sample_keys import key_of_record, keys_are_cheap, keys_of
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.record import Record

GREY = np.full((4, 6, 3), 7, np.uint8)
RECORD = Record(
    GREY,
    "a circle",
    1,
    np.ones((4, 6), np.float32),
    "a.png",
    {"target_ids": np.arange(4), "colour": "red"},
    (GREY,),
    np.zeros((4, 6), bool),
)


@pytest.mark.parametrize(
    "change",
    [
        {"image": GREY + 1},
        {"image": GREY.reshape(6, 4, 3)},
        {"caption": "a circle "},
        {"mask": np.zeros((4, 6), np.float32)},
        {"mask": None},
        {"inpaint_mask": np.ones((4, 6), bool)},
        {"references": (GREY + 1,)},
        {"references": (GREY, GREY)},
        {"attributes": {"target_ids": np.arange(1, 5)}},
    ],
    ids=str,
)
def test_different_content_has_a_different_key(change):
    assert key_of_record(dataclasses.replace(RECORD, **change)) != key_of_record(RECORD)


def test_the_path_of_a_sample_is_not_part_of_its_key():
    moved = dataclasses.replace(
        RECORD, source="b.png", attributes={**RECORD.attributes, "colour": "blue"}
    )
    assert key_of_record(moved) == key_of_record(RECORD) and len(key_of_record(RECORD)) == 16


class Files:
    """Records that know their files' hashes, and are read only for what is made of them."""

    name, reads_files = "files", True

    def __init__(self, hashes):
        self.hashes = hashes

    def sample_keys(self):
        return [[1, each] for each in self.hashes]

    def check(self):
        raise AssertionError


def test_records_with_stored_hashes_are_not_read_for_their_keys():
    records = Files(["a", "b", "a"])
    keys_read = [key.tobytes() for key in keys_of(records)]
    assert keys_are_cheap(records) and keys_read[0] == keys_read[2] != keys_read[1]


def test_keys_are_computed_once_and_not_pickled_to_workers(tmp_path):
    written(tmp_path, total=3000, shard_size=1000)
    store = CacheStore.open(tmp_path)
    assert np.array_equal(store.keys.table(), keys(range(3000)))
    assert len(pickle.dumps(store)) < 5000
    assert np.array_equal(pickle.loads(pickle.dumps(store)).keys.table(), store.keys.table())
    (tmp_path / "keys.bin").write_bytes(keys(range(3000)).tobytes()[:-16])
    assert store.keys.table().shape == (3000, 16)
    with pytest.raises(CorruptStore, match=r"keys\.bin"):
        CacheStore.open(tmp_path).keys.table()
