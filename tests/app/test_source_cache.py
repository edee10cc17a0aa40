"""Records, groups and store of a source are opened once, and the same objects serve to the end."""

import pytest

from tests.app.preflights import SMALL
from tests.app.runs import run, settings
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.caches.sources import datasets, open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import cache_needs
from tinyflux_pl.cache.manifest import Manifest
from tinyflux_pl.core.errors import StaleCache

SOURCES = ("data.sources.shapes.train.count=6", "data.sources.shapes.validation.count=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    run("extract", folder, *SMALL, *SOURCES, "experts=none")
    return folder


def parts_of(root, *overrides):
    return Parts.from_config(settings("train", root, *SMALL, *SOURCES, "experts=none", *overrides))


def test_a_complete_store_is_opened_once_from_the_checks_to_the_datasets(root, monkeypatch):
    opened = []
    read = Manifest.read.__func__

    def counted(cls, folder):
        opened.append(folder.name)
        return read(cls, folder)

    monkeypatch.setattr(Manifest, "read", classmethod(counted))
    parts = parts_of(root)
    sources = open_sources(parts)
    caches = [cache for source in sources for cache in source.caches.values()]
    needs = [need for cache in caches for need in cache_needs.needs(cache)]
    cache_needs.check_shards(sources, needs, seed=0, run="x")
    cache_needs.check_fingerprints(parts, sources)
    prepared = prepare(parts, sources=sources)
    cache_needs.longest_caption(prepared)
    train, validation = datasets(prepared, in_memory=False)
    assert prepared is sources and [need.rows for need in needs] == [0, 0]
    assert (len(train), len(validation)) == (6, 2)
    assert sorted(opened) == ["train", "validation"]


def test_opening_the_sources_creates_no_file(tmp_path):
    (source,) = open_sources(parts_of(tmp_path))
    assert not source.train.exists and not source.is_complete
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_other_records_is_refused_with_the_number_of_new_samples(root):
    (source,) = open_sources(parts_of(root, "data.sources.shapes.train.count=8"))
    with pytest.raises(StaleCache, match="new or changed: 2 of 8 samples") as caught:
        source.train.require_same_records()
    assert "rebuild=true" in caught.value.cure and "data.sources.shapes.cache=" in caught.value.cure
    source.validation.require_same_records()
