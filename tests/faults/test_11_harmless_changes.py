"""Fault 11: what does not decide a cache changes, and nothing is made again."""

import os
import shutil
from pathlib import Path

import pytest

from tests.faults import caching
from tinyflux_pl.app import report


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = caching.make(tmp_path_factory.mktemp("world") / "world", pretrained=False)
    caching.extract(root, pretrained=False)
    return root


def touched(root: Path) -> Path:
    """Every picture, caption and weight looks newer than the cache."""
    for file in root.rglob("*"):
        if "cache" not in file.parts:
            os.utime(file, (4e9, 4e9))
    return root


def in_another_order(root: Path) -> Path:
    """The files lie in their folder in the opposite order."""
    old = root / "data"
    new = root / "written again"
    new.mkdir()
    for file in sorted(old.iterdir(), reverse=True):
        shutil.copy(file, new / file.name)
    shutil.rmtree(old)
    new.rename(old)
    return root


HARMLESS = {
    "mtime": (touched, ()),
    "moved root": (lambda root: Path(shutil.move(root, root.with_name("elsewhere [2], moved"))), ()),
    "batch size": (None, ("hardware.batch_size=4", "hardware.accumulation=2", "data.extraction_batch=3")),
    "workers": (None, ("hardware.workers=2",)),
    "order": (in_another_order, ()),
    "world size": (None, ("hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2")),
}


def test_nothing_is_made_again(world, tmp_path, monkeypatch, figure):
    rebuilt, seen = 0, []
    monkeypatch.setattr(report, "caches", lambda sources, skipped: seen.extend(sources))
    for name, (change, overrides) in HARMLESS.items():
        root = caching.copied(world, tmp_path / name)
        root = change(root) if change else root
        before = {p: p.stat().st_mtime_ns for p in (root / "cache").rglob("shard_*")}
        caching.extract(root, *overrides, pretrained=False)
        (source,) = seen
        assert before and {p: p.stat().st_mtime_ns for p in before} == before, name
        assert caching.content(root) == caching.content(world), name
        rebuilt += any(n for groups in source.made.values() for n in groups.values())
        seen.clear()
    figure(11, "mtime, moved root, batch size, workers, order, world size: no rebuild", 6 - rebuilt, len(HARMLESS))
