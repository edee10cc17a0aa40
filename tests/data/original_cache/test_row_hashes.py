"""The hashes of the rows of the original trainer's caches are kept until their files change."""

import re

import pytest
import torch

from tests.original_caches import COUNT, write, write_shards
from tinyflux_pl.core import sealed_file
from tinyflux_pl.data.original_cache.part_table import PartTable
from tinyflux_pl.data.original_cache.records import OriginalCache, _opened
from tinyflux_pl.data.records import file_index


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """Opens the rows anew, as another process does; returns their keys and how many were hashed."""
    monkeypatch.setattr(file_index, "RECENT_NS", 0)
    rows, digest = [], PartTable._digest
    counting = lambda self, row: rows.append(row) or digest(self, row)  # noqa: E731
    monkeypatch.setattr(PartTable, "_digest", counting)

    def keys(root, index="decoded.bin"):
        _opened.cache_clear()
        rows.clear()
        records = OriginalCache(root, "all", decoded=str(tmp_path / index))
        return records.sample_keys(), len(rows)

    return keys


def test_the_rows_of_unchanged_files_are_hashed_once(tmp_path, hashed):
    root = write_shards(tmp_path / "shards")  # of 4 and 2 rows
    first, count = hashed(root)
    assert count == COUNT and hashed(root) == (first, 0)
    assert hashed(root, "another.bin") == (first, COUNT)
    shard = root / "encodings" / "shard_0001.pt"
    content = torch.load(shard)
    torch.save({**content, "latents": content["latents"] + 1}, shard)
    changed, count = hashed(root)
    assert count == 2 and changed[:4] == first[:4]
    assert all(now != before for now, before in zip(changed[4:], first[4:], strict=True))
    assert hashed(root) == (changed, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: sealed_file.write(file, sealed_file.read(file).replace(b'["', b'["x', 1)),
        lambda file: sealed_file.write(
            file, re.sub(rb'"[0-9a-f]{64}",', b"", sealed_file.read(file), count=1)
        ),
    ],
)
def test_damaged_hashes_are_computed_again(tmp_path, hashed, damage):
    root = write(tmp_path / "single")
    first, _ = hashed(root)
    damage(tmp_path / "decoded.rows.json")
    assert hashed(root) == (first, COUNT) and hashed(root) == (first, 0)
