"""A rebuilt cache takes the old one's place: whole at every moment, whatever call is the last."""

import os
import shutil

import pytest

from tests.stores import shard_faults, written
from tinyflux_pl.app.caches import replacement
from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.cache.store import CacheStore


@pytest.fixture
def root(tmp_path):
    """A store of 7 samples, and beside it the whole new one, of 4."""
    written(tmp_path / "train")
    written(tmp_path / "train.new", total=4)
    return tmp_path / "train"


def whole(root):
    store = CacheStore.open(root)
    return store.complete("encodings") and not shard_faults(store) and len(store) in (4, 7)


def calls(monkeypatch, act):
    """Let act(n) happen before the n-th rename or removal of a tree."""
    done = []
    for module, name in ((os, "rename"), (shutil, "rmtree")):
        real = getattr(module, name)

        def watched(*given, _real=real, **named):
            act(len(done))
            done.append(given)
            return _real(*given, **named)

        monkeypatch.setattr(getattr(replacement, module.__name__), name, watched)
    return done


def test_the_new_store_takes_the_old_one_s_place(root):
    Replacement(root, rebuild=True).finish()
    assert len(CacheStore.open(root)) == 4 and sorted(p.name for p in root.parent.iterdir()) == [
        "train"
    ]


@pytest.mark.parametrize("last", range(5))
def test_stopped_before_any_call_one_whole_store_is_there_at_the_next_start(
    root, monkeypatch, last
):
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
    assert whole(root)


def test_no_store_is_removed_before_another_whole_one_has_its_place(root, monkeypatch):
    def look(_):
        places = [p for p in (root, root.with_name("train.old")) if (p / "manifest.json").exists()]
        stores = [CacheStore.open(place) for place in places]
        assert any(len(store) in (4, 7) and not shard_faults(store) for store in stores)

    calls(monkeypatch, look)
    Replacement(root, rebuild=True).finish()


def test_what_an_earlier_rebuild_left_behind_is_removed_without_the_old_store(root):
    Replacement(root, rebuild=True).start_over()
    assert len(CacheStore.open(root)) == 7 and not root.with_name("train.new").exists()
