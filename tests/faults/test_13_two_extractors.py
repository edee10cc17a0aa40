"""Fault 13: two extractors in one directory: one is refused, and what the other writes is whole."""

import re
import shutil

import pytest

from tests.faults import caching
from tests.faults.conftest import times
from tests.faults.forks import Child
from tinyflux_pl.app import run as recipes
from tinyflux_pl.data import store_health

REFUSED = re.compile(r"written by process (\d+)")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """One without a cache, one whose cache is stale (a caption was changed since), and the caches to come."""
    fresh = caching.make(tmp_path_factory.mktemp("world") / "fresh", pictures=12, pretrained=False)
    stale, whole = (caching.copied(fresh, fresh.with_name(name)) for name in ("stale", "whole"))
    caching.extract(stale, pretrained=False)
    (stale / "data" / "003.txt").write_text("a black square")
    shutil.copy(stale / "data" / "003.txt", whole / "data")
    caching.extract(whole, pretrained=False)
    expected = caching.content(stale), caching.content(whole)
    return fresh, stale, expected


@pytest.mark.parametrize("rebuild", [False, True])
def test_one_is_refused_and_nothing_is_corrupt(worlds, tmp_path, rebuild, figure):
    fresh, stale, expected = worlds
    tried, held = times(2, 10), 0
    for i in range(tried):
        root = caching.copied(stale if rebuild else fresh, tmp_path / str(i))
        config = caching.config(root, f"rebuild={str(rebuild).lower()}", pretrained=False)
        work = lambda config=config: recipes.extract(config)  # noqa: E731
        with Child(work, tmp_path / f"{i}.first") as first, Child(work, tmp_path / f"{i}.second") as second:
            ended = {first.pid: first.wait(), second.pid: second.wait()}
        ((owner, done),) = ((pid, end) for pid, end in ended.items() if end.code == 0)
        (refused,) = (end for end in ended.values() if end is not done)
        assert REFUSED.search(refused.printed)[1] == str(owner)
        faults = [found for split in ("train", "validation") for found in examined(root, split)]
        held += not faults and caching.content(root) == expected[rebuild]
    figure(13, f"two {'rebuilds' if rebuild else 'extractors'}, one directory: one refused, none corrupt", held, tried)


def examined(root, split):
    return [found for found in store_health.examine(root / "cache" / "folder" / split) if found[1]]
