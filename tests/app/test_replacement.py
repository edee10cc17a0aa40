"""Replacing a cache leaves a complete store at every moment, whichever call is the last."""

import os
import shutil

import pytest

from tests.stores import shard_faults, written
from tinyflux_pl.app.caches import replacement
from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.cache.store import CacheStore


@pytest.fixture
def root(tmp_path):
    """A store of 7 samples, and next to it its complete replacement of 4."""
    written(tmp_path / "train")
    written(tmp_path / "train.new", total=4)
    return tmp_path / "train"


def is_complete(root):
    store = CacheStore.open(root)
    return store.complete("encodings") and not shard_faults(store) and len(store) in (4, 7)


def calls(monkeypatch, act):
    """Let act(n) happen before the n-th rename or removal of a tree."""
    done = []
    for module, name in ((os, "rename"), (shutil, "rmtree")):
        real = getattr(module, name)

        def watched(*args, _real=real, **named):
            act(len(done))
            done.append(args)
            return _real(*args, **named)

        monkeypatch.setattr(getattr(replacement, module.__name__), name, watched)
    return done


def test_the_new_store_replaces_the_old_one(root):
    Replacement(root, rebuild=True).finish()
    assert len(CacheStore.open(root)) == 4 and sorted(p.name for p in root.parent.iterdir()) == [
        "train"
    ]


@pytest.mark.parametrize("last", range(5))
def test_a_replacement_killed_at_any_call_leaves_one_complete_store(root, monkeypatch, last):
    def stop(n):
        if n == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        done = calls(patched, stop)
        if last < 4:
            with pytest.raises(KeyboardInterrupt):
                Replacement(root, rebuild=True).finish()
        else:
            Replacement(root, rebuild=True).finish()
            assert len(done) == 4, "as many calls as there are cases here"
    Replacement(root, rebuild=False)
    assert is_complete(root)


def test_no_store_is_removed_before_its_replacement_is_complete(root, monkeypatch):
    def look(_):
        folders = [p for p in (root, root.with_name("train.old")) if (p / "manifest.json").exists()]
        stores = [CacheStore.open(folder) for folder in folders]
        assert any(len(store) in (4, 7) and not shard_faults(store) for store in stores)

    calls(monkeypatch, look)
    Replacement(root, rebuild=True).finish()


def test_remains_of_an_earlier_rebuild_are_removed_and_the_old_store_kept(root):
    Replacement(root, rebuild=True).start_over()
    assert len(CacheStore.open(root)) == 7 and not root.with_name("train.new").exists()
