"""The store returns what was written, extends it, and refuses stale or invalid data."""

import json
import tracemalloc

import pytest
import torch

from tests.stores import CAPTIONS, PARTS, shard_faults, tensors, written
from tinyflux_pl.cache.staleness import differences
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import DataError, SpecMismatch, StaleCache


def test_rows_are_read_bit_equal_in_any_order_and_in_their_dtypes(tmp_path):
    written(tmp_path)
    store, expected = CacheStore.open(tmp_path), tensors(range(7))
    for indices in ([6, 0, 3, 3, 1], [2, 1], list(range(7)), torch.tensor([5])):
        for key, column in expected.items():
            rows = store.gather(key, indices)
            assert rows.dtype == column.dtype and torch.equal(rows, column[indices]), key
        assert store.captions(indices) == [CAPTIONS[int(i)] for i in indices]
    assert torch.equal(
        store.gather("text.tokens", [6, 0], first=2), expected["text.tokens"][[6, 0], :2]
    )
    assert store.gather("lune.features", [4, 2])[:, 0, 0].tolist() == [4.0, 2.0]
    assert store.layout("lune") == {"lune.features": (torch.float32, (2, 8))}
    assert (store.total, store.shards, store.rows(2)) == (7, 3, range(6, 7)) and shard_faults(
        store
    ) == []


def test_reading_a_few_rows_does_not_copy_their_shard(tmp_path):
    rows, length = 256, 512
    store = CacheStore.create(tmp_path, "s", rows, rows, {"name": "r"})
    store.begin_group("encodings", PARTS)
    tokens = torch.arange(rows * length, dtype=torch.float32).view(rows, length, 1)
    store.write_shard("encodings", 0, {"tokens": tokens}, [""] * rows)
    store.gather("tokens", [0], first=128)  # opened and hashed
    tracemalloc.start()
    gathered = store.gather("tokens", [7, 3, 7], first=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(gathered, tokens[[7, 3, 7], :128])
    assert peak < rows * 128 * 4 / 2, "what the first columns of the whole shard take"


@pytest.mark.parametrize("indices", [[7], [-1], []])
def test_out_of_range_indices_are_refused(tmp_path, indices):
    with pytest.raises(IndexError):
        written(tmp_path).gather("latents", indices)


def test_unknown_keys_and_groups_are_refused_by_name(tmp_path):
    store = written(tmp_path)
    with pytest.raises(KeyError, match=r"latent is not in this store.*latents"):
        store.gather("latent", [0])
    with pytest.raises(DataError, match="no group 'sol'"):
        store.pending("sol")
    with pytest.raises(DataError, match="no cache here"):
        CacheStore.open(tmp_path / "elsewhere")


def test_an_expert_is_added_later_without_touching_the_encodings(tmp_path):
    written(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "encodings").iterdir()}
    store = CacheStore.open(tmp_path)
    store.begin_group("sol", {"teacher": "s"})
    assert store.pending("sol") == [0, 1, 2] and not store.complete("sol")
    for k in range(3):
        store.write_shard("sol", k, {"stats": torch.ones(len(store.rows(k)), 2, 4)})
    assert store.complete("sol") and set(store.groups()) == {"encodings", "lune", "sol"}
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "encodings").iterdir()}


def test_a_store_resumes_with_equal_inputs_and_names_the_differing_part(tmp_path):
    store = written(tmp_path)
    store.begin_group("encodings", PARTS)  # the same: resumes
    store.begin_group("lune", {"teacher": "t", "buckets": (0.25, 0.75)})  # tuples are JSON's lists
    other = {**PARTS, "codec": {"name": "pixels", "fold": 2}}
    with pytest.raises(StaleCache, match=r"codec\.fold: cache 4, run 2") as caught:
        store.begin_group("encodings", other, cure="python extract.py data=toy rebuild=true")
    assert "data=toy" in str(caught.value)
    assert CacheStore.create(tmp_path, "renamed", 7, 100, {"seed": 1}).shard_size == 3
    with pytest.raises(StaleCache, match=r"records\.seed: cache 1, run 2"):
        CacheStore.create(tmp_path, "toy", 7, 3, {"seed": 2})
    with pytest.raises(StaleCache, match="total: cache 7, run 8"):
        CacheStore.create(tmp_path, "toy", 8, 3, {"seed": 1})


def test_every_differing_part_of_a_fingerprint_is_named():
    lines = differences({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 1, "c": 3}, "e": 0})
    assert lines == ["a.c: cache 3, run 2", "d: cache has none, run 1", "e: cache 0, run has none"]


def test_hashes_are_abbreviated():
    (line,) = differences({"content": "ab" * 32}, {"content": "cd" * 32})
    assert line == f"content: cache {'cd' * 6}, run {'ab' * 6}"


def test_fingerprints_are_compared_as_json_with_types():
    assert differences({"x": True}, {"x": 1})
    assert not differences({"x": (1, 2)}, {"x": [1, 2]})


def test_a_group_with_a_missing_record_is_incomplete(tmp_path):
    store = written(tmp_path)
    (tmp_path / "encodings" / "shard_00001.json").unlink()
    assert not store.complete("encodings") and store.complete("lune") and not store.complete("sol")


def test_invalid_shards_are_refused_at_writing(tmp_path):
    store = CacheStore.create(tmp_path, "toy", 4, 2, {})
    store.begin_group("encodings", PARTS)
    with pytest.raises(DataError, match="has 2 rows"):
        store.write_shard("encodings", 0, tensors(range(3)), ["a", "b"])
    with pytest.raises(DataError, match="3 captions"):
        store.write_shard("encodings", 0, tensors(range(2)), ["a", "b", "c"])
    with pytest.raises(DataError, match="latents: not finite"):
        store.write_shard("encodings", 0, {"latents": torch.full((2, 3), float("nan"))}, ["a", "b"])
    store.write_shard("encodings", 0, tensors(range(2)), ["a", "b"])
    with pytest.raises(SpecMismatch, match="latents"):
        store.write_shard(
            "encodings", 1, {**tensors(range(2, 4)), "latents": torch.ones(2, 4, 3, 4)}, ["a", "b"]
        )
    assert store.pending("encodings") == [1]
    for name in ("../out", "text", ""):
        with pytest.raises(DataError, match="not a valid group name"):
            store.begin_group(name, {})


def test_the_manifest_is_json(tmp_path):
    written(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["total"] == 7 and manifest["records"] == {"seed": 1} and manifest["schema"] == 2


@pytest.mark.parametrize("schema", [1, 4])
def test_a_store_of_another_schema_is_refused_with_the_rebuild_command(tmp_path, schema):
    from tinyflux_pl.cache.sealed_json import read_sealed
    from tinyflux_pl.core.errors import CorruptStore
    from tinyflux_pl.core.files import write_sealed

    written(tmp_path)
    manifest = tmp_path / "manifest.json"
    content = read_sealed(manifest, tmp_path)
    write_sealed(manifest, {**content, "schema": schema})
    with pytest.raises(CorruptStore, match=f"schema {schema}; this version reads 2") as caught:
        CacheStore.open(tmp_path)
    assert "rebuild=true" in caught.value.cure
