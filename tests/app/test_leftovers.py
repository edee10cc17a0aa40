"""The doctor lists files that no run needs with their size, and removes them with prune=true."""

import shutil
import threading

import pytest
import torch

from tests.app.runs import configuration
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.caches.leftovers import EXCESS, PARTIAL, REPLACED, STOPPED, leftovers, prune
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.file_lock import FILLING, locked

PARTS = (".manifest.json.0123abcd.part", "encodings/.shard_00001.safetensors.0123abcd.part")


def store(root, count=2):
    """A complete store of `count` rows in shards of one."""
    created = CacheStore.create(root, "small", count, 1, {})
    created.begin_group("encodings", {})
    for k in range(count):
        created.write_shard("encodings", k, {"latents": torch.ones(1, 3)}, ["caption"])
    return root


@pytest.fixture
def cache(tmp_path):
    """A store with everything beside it that can be left, and files of other programs."""
    root = store(tmp_path / "cache" / "train")
    for suffix in (".new", ".old"):
        store(root.with_name(f"train{suffix}"))
    for name in PARTS:
        (root / name).write_bytes(b"half")
    longer = store(tmp_path / "longer", 3)
    for suffix in ("safetensors", "json"):
        shutil.copy(longer / f"encodings/shard_00002.{suffix}", root / "encodings")
    shutil.rmtree(longer)
    return root


def stores(cache):
    return sorted(path for path in cache.parent.iterdir() if path.is_dir())


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_kind_is_listed_with_its_reason_and_nothing_is_removed(cache):
    before = files(cache.parent)
    listed = {(each.store.name, each.reason): each for each in leftovers(stores(cache))}
    assert listed.keys() == {
        ("train", PARTIAL),
        ("train", EXCESS),
        ("train.new", STOPPED),
        ("train.old", REPLACED),
    }
    assert {file.relative_to(cache).as_posix() for file in listed["train", PARTIAL].files} == {
        *PARTS
    }
    assert listed["train", PARTIAL].bytes == 8
    assert files(cache.parent) == before


def test_pruning_leaves_the_files_of_a_new_store(cache, tmp_path):
    assert prune(leftovers(stores(cache))) == {}
    assert [path.name for path in stores(cache)] == ["train"]
    assert files(cache) - {".lock"} == files(store(tmp_path / "fresh")) - {".lock"}
    assert CacheStore.open(cache).complete("encodings") and leftovers([cache]) == []


def test_a_replaced_store_without_its_successor_is_the_only_copy(cache):
    shutil.rmtree(cache)
    assert leftovers(stores(cache)) == []


def test_files_of_other_programs_are_kept_and_named(cache):
    old = cache.with_name("train.old")
    (old / "notes.txt").write_text("mine")
    (old / "encodings" / "shard_00001.json").write_text('{"short_name": "page", "icons": []}')
    (cache / ".notes.part").write_text("mine")
    kept = prune(leftovers(stores(cache)))
    assert [(each.reason, why) for each, why in kept.items()] == [
        (REPLACED, "its own files are gone; it holds others: encodings, notes.txt")
    ]
    assert files(old) == {
        *("notes.txt", "encodings/shard_00001.json", "encodings/shard_00001.safetensors"),
    }
    assert (cache / ".notes.part").exists()


@pytest.mark.parametrize("name", [".lock", FILLING])
def test_nothing_is_removed_under_the_lock_of_a_living_writer(cache, name):
    before = files(cache.parent)
    begun, done = threading.Event(), threading.Event()

    def write():
        with locked(cache.parent, name):
            begun.set()
            done.wait()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    try:
        kept = prune(leftovers(stores(cache)))
    finally:
        done.set()
        writer.join()
    assert len(kept) == 4 and all("written by process" in why for why in kept.values())
    assert files(cache.parent) - before <= {".lock", FILLING}


def test_a_folder_without_a_seal_is_never_a_leftover(tmp_path):
    store(tmp_path / "train")
    (tmp_path / "train.old").mkdir()
    (tmp_path / "train.old" / "manifest.json").write_text("{}")
    config = configuration("extract", tmp_path / "elsewhere", f"doctor='{tmp_path}'", "prune=true")
    assert recipes.extract(config) == 0
    assert (tmp_path / "train.old" / "manifest.json").exists()


def test_the_doctor_lists_by_default_and_removes_with_prune(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words = ("extract", tmp_path / "elsewhere", f"doctor='{cache.parent}'")
    recipes.extract(configuration(*words))
    output = capsys.readouterr().out
    assert "2 files left by a writer that was killed, 0.0 MiB" in output
    assert f"doctor={cache.parent} prune=true" in output and cache.with_name("train.new").exists()
    assert recipes.extract(configuration(*words, "prune=true")) == 0
    assert "removed: no run needs them" in capsys.readouterr().out
    assert [path.name for path in stores(cache)] == ["train"]
