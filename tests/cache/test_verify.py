"""Every altered bit is detected, named and repaired without touching other files."""

import json
import random

import pytest

from tests.stores import PARTS, keys, shard_faults, written
from tinyflux_pl.cache import verify
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, DataError
from tinyflux_pl.core.file_lock import locked


def files_of(root):
    return [p for p in root.rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def read_all(root):
    """Everything that a run reads at its start, and all rows."""
    store = CacheStore.open(root)
    assert store.complete("encodings") and store.complete("lune")
    store.gather("latents", range(7))
    store.gather("lune.features", range(7))


def faults(root):
    return {str(path.relative_to(root)): fault for path, fault in verify.examine(root) if fault}


def test_every_bit_flip_is_detected_by_reading_and_by_verification(tmp_path):
    written(tmp_path)
    drawn, names = random.Random(0), files_of(tmp_path)
    assert len(names) == 2 + 2 * (1 + 2 * 3)
    for name in [*names, *(drawn.choice(names) for _ in range(90))]:
        original = name.read_bytes()
        broken = bytearray(original)
        broken[drawn.randrange(len(broken))] ^= 1 << drawn.randrange(8)
        name.write_bytes(broken)
        with pytest.raises(CorruptStore) as caught:
            read_all(tmp_path)
        assert name.name.split(".")[0] in str(caught.value) and "repair=true" in caught.value.cure
        damaged = faults(tmp_path)
        judged = name.with_suffix(".safetensors") if name.name.startswith("shard") else name
        assert list(damaged) == [str(judged.relative_to(tmp_path))]
        name.write_bytes(original)
    assert not faults(tmp_path)
    read_all(tmp_path)


def test_truncated_shards_are_named_and_only_they_are_removed(tmp_path):
    written(tmp_path)
    shard = tmp_path / "lune" / "shard_00001.safetensors"
    original = shard.read_bytes()
    for length in {0, 4, 8, 9, len(original) // 3, len(original) - 1}:
        shard.write_bytes(original[:length])
        with pytest.raises(CorruptStore, match=str(shard)):
            CacheStore.open(tmp_path, verify_on_read=False).gather("lune.features", [4])
    store = CacheStore.open(tmp_path)
    assert store.gather("lune.features", [0, 6]).shape == (2, 2, 8)  # the other shards serve on
    assert len(shard_faults(store)) == 1 and shard_faults(store)[0].startswith("lune/shard_00001")
    assert [path for path, _ in verify.repair(tmp_path)] == [shard]
    assert store.pending("lune") == [1] and store.pending("encodings") == []
    assert faults(tmp_path) == {"lune/shard_00001.safetensors": verify.NOT_WRITTEN}


@pytest.mark.parametrize(
    "lost", ["manifest.json", "keys.bin", "lune/group.json", "encodings/group.json"]
)
def test_shards_stay_usable_after_their_metadata_is_lost(tmp_path, lost):
    """The next run writes the metadata again; shards record the inputs they were made from."""
    written(tmp_path)
    (tmp_path / lost).write_bytes(b"{}")
    assert [path.name for path, _ in verify.repair(tmp_path)] == [lost.split("/")[-1]]
    store = CacheStore.create(tmp_path, "toy", 7, 3, {"seed": 1}, lambda: keys(range(7)))
    store.begin_group("encodings", PARTS)
    store.begin_group("lune", {"teacher": "t", "buckets": [0.25, 0.75]})
    assert store.complete("encodings") and store.complete("lune") and not faults(tmp_path)


def test_shards_with_lost_metadata_are_not_used_for_other_inputs(tmp_path):
    written(tmp_path)
    for lost, samples, teacher in (
        ("lune/group.json", range(7), "u"),
        ("manifest.json", range(5, 12), "t"),
    ):
        (tmp_path / lost).write_bytes(b"{}")
        verify.repair(tmp_path)
        store = CacheStore.create(
            tmp_path, "toy", 7, 3, {"seed": 1}, lambda samples=samples: keys(samples)
        )
        (tmp_path / "lune" / "group.json").unlink(missing_ok=True)
        store.begin_group("lune", {"teacher": teacher, "buckets": [0.25, 0.75]})
        assert store.pending("lune") == [0, 1, 2]
        with pytest.raises(CorruptStore, match="other inputs"):
            store.gather("lune.features", [0])


def test_a_damaged_additional_file_is_detected_and_removed_alone(tmp_path):
    written(tmp_path)
    (tmp_path / "audit.json").write_bytes(files.sealed({"counted": 7}))
    assert not faults(tmp_path)
    (tmp_path / "audit.json").write_bytes(files.sealed({"counted": 7}).replace(b"7", b"8"))
    assert list(faults(tmp_path)) == ["audit.json"]
    verify.repair(tmp_path)
    assert not faults(tmp_path) and not (tmp_path / "audit.json").exists()


def test_a_foreign_file_in_place_of_shard_metadata_is_named_and_kept(tmp_path):
    written(tmp_path)
    expected = tmp_path / "lune" / "shard_00001.json"
    expected.write_text(json.dumps({"count": 2, "license": "mine"}))
    assert verify.foreign_files(tmp_path) == [expected]
    verify.repair(tmp_path)
    assert json.loads(expected.read_text())["license"] == "mine" and faults(tmp_path)


def test_a_shard_copied_to_another_index_is_refused(tmp_path):
    written(tmp_path, total=9)
    lune = tmp_path / "lune"
    for end in ("safetensors", "json"):
        (lune / f"shard_00001.{end}").write_bytes((lune / f"shard_00002.{end}").read_bytes())
    assert CacheStore.open(tmp_path).pending("lune") == [1]
    assert "other inputs" in faults(tmp_path)["lune/shard_00001.safetensors"]


def test_each_shard_is_hashed_once_a_process(tmp_path, monkeypatch):
    written(tmp_path)
    store, calls = CacheStore.open(tmp_path), []
    import tinyflux_pl.cache.shards as shards

    real = shards.hashlib.sha256
    monkeypatch.setattr(shards.hashlib, "sha256", lambda *a, **k: calls.append(1) or real(*a, **k))
    before_seals = len(calls)
    store.gather("latents", [0, 1, 6])
    once = len(calls) - before_seals
    store.gather("latents", [0, 1, 2, 6])
    store.gather("text.tokens", [0])
    assert once > 0 and len(calls) - before_seals == once


@pytest.mark.parametrize("shape", [[-1, 4, 3, 3], [3, 4, 3, 4], [3, -4, 3, -3]])
def test_a_header_with_a_valid_hash_but_wrong_byte_ranges_is_refused(tmp_path, shape):
    """As a store that others made may hold: hashes are no signature."""
    store = written(tmp_path)
    shard = store.group("encodings").shard_path(0)
    content = shard.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["latents"]["shape"] = shape
    text = json.dumps(header).encode()
    shard.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])
    record = files.read_sealed(shard.with_suffix(".json"))
    files.write_sealed(
        shard.with_suffix(".json"),
        {**record, "sha256": files.sha256(shard), "size": shard.stat().st_size},
    )
    with pytest.raises(CorruptStore, match="its header is damaged"):
        CacheStore.open(tmp_path).gather("latents", [0])


def test_a_store_that_is_being_written_is_not_repaired(tmp_path):
    root = tmp_path / "train"
    written(root)
    (root / "lune" / "shard_00000.json").write_text("{}")
    # as an extraction holds it
    with locked(tmp_path), pytest.raises(DataError, match="is being written by process"):
        verify.repair(root)
    assert (root / "lune" / "shard_00000.json").exists()
    assert len(verify.repair(root)) == 1


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("manifest.json", {"schema": None}),
        ("manifest.json", {"total": "x"}),
        ("manifest.json", {"total": -1}),
        ("manifest.json", {"total": 10**12}),
        ("manifest.json", {"shard_size": 0}),
        ("manifest.json", {"keys": None}),
        ("lune/group.json", {"fingerprint": None}),
        ("lune/shard_00000.json", {"size": None}),
        ("lune/shard_00000.json", {"layout": 3}),
    ],
)
def test_sealed_metadata_with_impossible_values_is_refused_by_file(tmp_path, name, changed):
    """Forged files: the doctor finishes and names them."""
    written(tmp_path)
    altered = {**files.read_sealed(tmp_path / name), **changed}
    files.write_sealed(
        tmp_path / name, {key: value for key, value in altered.items() if value is not None}
    )
    with pytest.raises(CorruptStore) as caught:
        read_all(tmp_path)
    assert caught.value.where.endswith(name) or "keys.bin" in caught.value.where
    assert any(
        damaged_file in (name, "keys.bin", name.replace(".json", ".safetensors"))
        for damaged_file in faults(tmp_path)
    )


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    written(tmp_path)
    (tmp_path / "keys.bin").unlink()
    (tmp_path / "keys.bin").mkdir()
    assert "keys.bin" in faults(tmp_path)
