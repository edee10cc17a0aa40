"""The store gives back what was written, survives kill -9, and refuses anything altered or stale."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tinyflux_pl.core.errors import CorruptStore, DataError, DiskFull, SpecMismatch, StaleCache
from tinyflux_pl.data import cache_validity
from tinyflux_pl.data.cache_store import CacheStore

PARTS = {"codec": {"name": "pixels", "fold": 4}, "text": {"name": "hashed", "width": 6}, "image_size": 32}
CAPTIONS = ["a red circle", "", "zwei grüne Kreise", "円", "x" * 300, "a\nline", "\u2028"]


def tensors(rows: range) -> dict[str, torch.Tensor]:
    def drawn(i: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(i))

    return {
        "latents": torch.stack([drawn(i, 4, 3, 3) for i in rows]).bfloat16(),
        "text.tokens": torch.stack([drawn(i, 5, 6) for i in rows]).half(),
        "text.mask": torch.stack([torch.arange(5) < 1 + i % 5 for i in rows]),
        "text.pooled": torch.stack([drawn(i, 7) for i in rows]),
        "sample_ids": torch.tensor([2**62 + i for i in rows]),
    }


def written(root: Path, total: int = 7, shard_size: int = 3) -> CacheStore:
    store = CacheStore.create(root, "toy", total, shard_size, {"seed": 1})
    store.begin_group("encodings", PARTS)
    for k in store.pending("encodings"):
        store.write_shard("encodings", k, tensors(store.rows(k)), [CAPTIONS[i % 7] for i in store.rows(k)])
    store.begin_group("lune", {"teacher": "t", "buckets": [0.25, 0.75]})
    for k in store.pending("lune"):
        features = torch.stack([torch.full((2, 8), float(i)) for i in store.rows(k)])
        store.write_shard("lune", k, {"lune.features" if k else "features": features})
    return store


def test_gives_back_rows_in_any_order_bit_for_bit_and_in_their_own_types(tmp_path):
    written(tmp_path)
    store, expected = CacheStore.open(tmp_path), tensors(range(7))
    for indices in ([6, 0, 3, 3, 1], [2, 1], list(range(7)), torch.tensor([5])):
        for key, whole in expected.items():
            rows = store.gather(key, indices)
            assert rows.dtype == whole.dtype and torch.equal(rows, whole[indices]), key
        assert store.captions(indices) == [CAPTIONS[int(i)] for i in indices]
    assert torch.equal(store.gather("text.tokens", [6, 0], first=2), expected["text.tokens"][[6, 0], :2])
    assert store.gather("lune.features", [4, 2])[:, 0, 0].tolist() == [4.0, 2.0]
    assert store.layout("lune") == {"lune.features": (torch.float32, (2, 8))}
    assert (store.total, store.shards, store.rows(2)) == (7, 3, range(6, 7)) and store.verify() == []


@pytest.mark.parametrize("indices", [[7], [-1], []])
def test_indices_outside_are_an_error(tmp_path, indices):
    with pytest.raises(IndexError):
        written(tmp_path).gather("latents", indices)


def test_unknown_keys_and_groups_are_named(tmp_path):
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


def test_resumes_with_the_same_inputs_and_names_the_part_that_differs(tmp_path):
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


def test_validity_reports_every_difference_and_what_is_missing(tmp_path):
    store = written(tmp_path)
    cache_validity.check(store, "encodings", PARTS)
    found = cache_validity.differences({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 1, "c": 3}, "e": 0})
    assert found == ["a.c: cache 3, run 2", "d: cache has none, run 1", "e: cache 0, run has none"]
    assert cache_validity.differences({"x": True}, {"x": 1}) and not cache_validity.differences(
        {"x": (1, 2)}, {"x": [1, 2]}
    )
    with pytest.raises(StaleCache, match="has no 'sol'"):
        cache_validity.check(store, "sol", {})
    (tmp_path / "encodings" / "shard_00001.json").unlink()
    with pytest.raises(StaleCache, match="not finished"):
        cache_validity.check(store, "encodings", PARTS)


def test_every_bit_flip_is_found(tmp_path):
    written(tmp_path)
    drawn = random.Random(0)
    names = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert len(names) == 1 + 2 * (1 + 2 * 3)
    for name in [*names, *(drawn.choice(names) for _ in range(90))]:
        whole = name.read_bytes()
        torn = bytearray(whole)
        torn[drawn.randrange(len(torn))] ^= 1 << drawn.randrange(8)
        name.write_bytes(torn)
        with pytest.raises(CorruptStore) as caught:
            store = CacheStore.open(tmp_path)
            store.groups()
            store.gather("latents", range(7))
            store.gather("lune.features", range(7))
        assert name.name.split(".")[0] in str(caught.value)
        name.write_bytes(whole)
    assert CacheStore.open(tmp_path).verify() == []


def test_truncated_shards_are_refused_named_and_repaired(tmp_path):
    written(tmp_path)
    shard = tmp_path / "lune" / "shard_00001.safetensors"
    whole = shard.read_bytes()
    for length in {0, 4, 8, 9, len(whole) // 3, len(whole) - 1}:
        shard.write_bytes(whole[:length])
        with pytest.raises(CorruptStore, match=str(shard)) as caught:
            CacheStore.open(tmp_path, verify_on_read=False).gather("lune.features", [4])
        assert "extract.py" in str(caught.value)
    store = CacheStore.open(tmp_path)
    assert store.gather("lune.features", [0, 6]).shape == (2, 2, 8)  # the other shards serve on
    assert store.verify() == store.repair() != []
    assert store.pending("lune") == [1] and store.pending("encodings") == []


def test_each_shard_is_hashed_once_a_process(tmp_path, monkeypatch):
    written(tmp_path)
    store, calls = CacheStore.open(tmp_path), []
    import tinyflux_pl.data.cache_group as room

    real = room.hashlib.sha256
    monkeypatch.setattr(room.hashlib, "sha256", lambda *a, **k: calls.append(1) or real(*a, **k))
    before_seals = len(calls)
    store.gather("latents", [0, 1, 6])
    once = len(calls) - before_seals
    store.gather("latents", [0, 1, 2, 6])
    store.gather("text.tokens", [0])
    assert once > 0 and len(calls) - before_seals == once


def test_writing_refuses_what_would_poison_the_store(tmp_path):
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
        store.write_shard("encodings", 1, {**tensors(range(2, 4)), "latents": torch.ones(2, 4, 3, 4)}, ["a", "b"])
    assert store.pending("encodings") == [1]
    for name in ("../out", "text", ""):
        with pytest.raises(DataError, match="not a name"):
            store.begin_group(name, {})


def test_two_writers_one_store_one_is_refused_and_a_dead_ones_lock_is_free(tmp_path):
    CacheStore.create(tmp_path, "toy", 4, 2, {})
    program = (
        "import sys, time; from tinyflux_pl.data.cache_store import CacheStore\n"
        "with CacheStore.open(sys.argv[1]).writing(): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"written by process {other.pid}"):
            CacheStore.open(tmp_path).begin_group("encodings", PARTS)
    finally:
        other.kill()
        other.wait()
    with CacheStore.open(tmp_path).writing() as store:
        store.begin_group("encodings", PARTS)  # the lock is its own: no deadlock


def test_kill_9_at_any_instant_leaves_counted_shards_whole(tmp_path):
    program = (
        "import sys, torch; from tinyflux_pl.data.cache_store import CacheStore\n"
        "s = CacheStore.create(sys.argv[1], 'toy', 800, 2, {}); s.begin_group('encodings', {})\n"
        "print('on', flush=True)\n"
        "for k in s.pending('encodings'): s.write_shard('encodings', k, {'x': torch.full((2, 9000), float(k))})"
    )
    drawn = random.Random(0)
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    counts = []
    for _ in range(8):  # stop it at random instants and look; then kill it for good
        time.sleep(drawn.uniform(0.005, 0.05))
        os.kill(child.pid, signal.SIGSTOP)
        store = CacheStore.open(tmp_path)
        done = sorted(set(range(store.shards)) - set(store.pending("encodings")))
        assert done == list(range(len(done)))
        assert not done or store.gather("x", [2 * k for k in done])[:, 0].tolist() == done
        counts.append(len(done))
        os.kill(child.pid, signal.SIGCONT)
    child.kill()
    child.wait()
    assert 0 < counts[-1] < 400 and counts == sorted(counts)
    CacheStore.open(tmp_path).begin_group("encodings", {})  # sweeps up what the dead writer left
    assert not list((tmp_path / "encodings").glob(".*.part"))


def test_a_full_disk_is_said_before_and_during_and_harms_nothing_old(tmp_path, monkeypatch):
    store = written(tmp_path)
    store.begin_group("sol", {})
    assert store.require_room("sol", {"stats": torch.zeros(1, 10, 4)}) == 7 * 160
    with pytest.raises(DiskFull, match=r"needs .* MiB"):
        store.require_room("sol", {"stats": torch.zeros(1, 1).expand(1, 2**50)})

    import safetensors.torch

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(DiskFull):
        store.write_shard("sol", 0, {"stats": torch.ones(3, 4)})
    assert all(fault.startswith("sol/") for fault in store.verify())  # only what is pending
    assert store.complete("encodings") and store.complete("lune") and store.pending("sol") == [0, 1, 2]


def test_the_manifest_is_plain_json(tmp_path):
    written(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["total"] == 7 and manifest["records"] == {"seed": 1} and manifest["schema"] == 1
