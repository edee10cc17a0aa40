"""Fault 30: repair leaves foreign shards, manifests and notes below a folder unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.app.runs import configuration
from tests.faults import caching
from tests.faults.conftest import FULL
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core import files


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = caching.make(tmp_path_factory.mktemp("caches") / "world", pretrained=False)
    caching.extract(root, pretrained=False)
    (store,) = root.rglob("train/manifest.json")
    return store.parent


def written(folder: Path, name: str, content: Any) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        files.write_tensors(file, {"x": torch.zeros(2)})
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))


def shards(folder: Path) -> None:
    """Sharded weights with a JSON file each, as other programs store them."""
    for k in range(3):
        written(folder, f"part/shard_{k:05d}.safetensors", None)
        written(folder, f"part/shard_{k:05d}.json", {"count": 2, "license": "mine"})


def described(folder: Path) -> None:
    written(folder, "manifest.json", {"shard_size": 100, "files": ["a", "b"]})
    written(folder, "keys.bin", "mine")
    written(folder, "notes.json", {"mine": True})


def grouped(folder: Path) -> None:
    shards(folder)
    written(folder, "part/group.json", {"fingerprint": {"of": "another program"}})
    written(folder, "manifest.json", {"shard_size": 100})


def damaged(folder: Path) -> None:
    written(folder, "manifest.json", '{"shard_size": 3')
    written(folder, "settings.json", "{")


# what lies in the folder by itself, and what lies in the middle of a cache of ours
ALONE: dict[str, Callable[[Path], None]] = {
    "shards": shards,
    "keys": described,
    "groups": grouped,
    "torn": damaged,
}
INSIDE: dict[str, Callable[[Path], None]] = {
    "shards": shards,
    "a group": lambda folder: written(folder, "users/group.json", {"fingerprint": {}}),
    "notes": lambda folder: written(folder, "my notes.json", "no JSON at all"),
    "settings": lambda folder: written(folder, "settings.json", {"mine": 1}),
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def mended(folder: Path, elsewhere: Path) -> None:
    recipes.extract(configuration("extract", elsewhere, f"doctor='{folder}'", "repair=true"))


def test_repair_leaves_files_of_other_programs_alone(tmp_path, cache, figure, capsys):
    passed = tried = 0
    for inside, kinds in ((False, ALONE), (True, INSIDE)):
        for number, (_, write) in enumerate(list(kinds.items())[: None if FULL else 3]):
            folder = tmp_path / f"{inside}{number}"
            if inside:
                shutil.copytree(cache, folder)
            before = content(folder)
            folder.mkdir(exist_ok=True)
            write(folder)
            foreign = {
                name: passed for name, passed in content(folder).items() if name not in before
            }
            mended(folder, tmp_path / "elsewhere")
            after = content(folder)
            tried += 1
            passed += all(after.get(name) == kept for name, kept in {**before, **foreign}.items())
    capsys.readouterr()
    figure(30, "repair below data of other programs", passed, tried)


def test_repair_still_removes_damaged_parts_of_a_store(tmp_path, cache, capsys):
    folder = Path(shutil.copytree(cache, tmp_path / "store"))
    shards(folder)
    (record, *_) = sorted(folder.glob("encodings/shard_*.json"))
    flipped = bytearray(record.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    record.write_bytes(flipped)
    (folder / "manifest.json").write_text("{")
    mended(folder, tmp_path / "elsewhere")
    assert not record.exists() and not (folder / "manifest.json").exists()
    assert (folder / "part" / "shard_00000.json").exists()
    capsys.readouterr()
