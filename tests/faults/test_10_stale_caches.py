"""Fault 10: every change that decides a cache is named, and a rebuild computes only its effects."""

import re

import pytest

from tests.faults import caching
from tests.faults.cache_changes import ALL, MUTATIONS, REBUILT
from tests.faults.conftest import FULL
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.reporting import report
from tinyflux_pl.core.errors import StaleCache


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = caching.make(tmp_path_factory.mktemp("world") / "world")
    caching.extract(root)
    return root


@pytest.fixture
def recomputed(monkeypatch):
    """Rows computed by each run of the recipe: group -> rows."""
    runs = []

    def note(sources, skipped):
        caches = [cache for source in sources for cache in source.caches.values()]
        rows = {f"{c.split}/{group}": n for c in caches for group, n in c.new_rows.items()}
        runs.append({name: n for name, n in rows.items() if n})

    monkeypatch.setattr(report, "caches", note)
    return runs


def stale(config, task):
    """The error that a run meets; None if it meets none."""
    try:
        getattr(recipes, task)(config)
    except StaleCache as error:
        return error
    return None


def test_each_change_is_named_and_leaves_the_cache_intact(world, tmp_path, recomputed, figure):
    passed, tasks = 0, ("extract", "train") if FULL else ("extract",)
    plain = {task: caching.config(world, task=task) for task in tasks}
    for name, (change, overrides, says, _) in MUTATIONS.items():
        root = caching.copied(world, tmp_path / re.sub(r"\W", "_", name))
        if change:
            change(root)
        before = caching.content(root)
        configs = (
            {t: caching.config(world, *overrides, task=t) for t in tasks} if overrides else plain
        )
        errors = [stale(caching.moved(configs[task], world, root), task) for task in tasks]
        named = all(
            error and re.search(says, error.what) and "rebuild=true" in error.cure
            for error in errors
        )
        assert named, f"{name}: {errors}"
        passed += caching.content(root) == before and not recomputed
    figure(
        10, "something that decides a cache changes: StaleCache names it", passed, len(MUTATIONS)
    )


def test_a_rebuild_recomputes_only_the_affected_rows(world, tmp_path, recomputed, figure):
    totals = {
        "train": len(caching.store(world)),
        "validation": len(caching.store(world, "validation")),
    }
    passed = 0
    for name in REBUILT:
        change, overrides, _, affected = MUTATIONS[name]
        root = caching.copied(world, tmp_path / re.sub(r"\W", "_", name))
        if change:
            change(root)
        caching.extract(root, *overrides, "rebuild=true")
        expected = {
            group: totals[group.split("/")[0]] if n == ALL else n for group, n in affected.items()
        }
        assert recomputed.pop() == expected, name
        fresh = caching.copied(root, tmp_path / "fresh" / root.name, caches=False)
        caching.extract(fresh, *overrides)
        assert caching.content(root) == caching.content(fresh), name
        recomputed.clear()
        caching.extract(root, *overrides)
        passed += recomputed.pop() == {}
    figure(
        10,
        "the rebuild makes just what is affected, bit for bit as from nothing",
        passed,
        len(REBUILT),
    )
