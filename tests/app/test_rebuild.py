"""`rebuild=true` in the recipe: reuse, damage, interruption, and which parts are loaded."""

import pytest

from tests import releases
from tests.app.runs import photographs
from tests.app.runs import run as run_recipe
from tests.faults import caching
from tinyflux_pl.app.reporting import report
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import ConfigError, StaleCache
from tinyflux_pl.experts import teacher


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = caching.make(tmp_path_factory.mktemp("world") / "world", pretrained=False)
    caching.extract(root, pretrained=False)
    return root


@pytest.fixture
def root(world, tmp_path):
    """A copy with one caption changed after extraction, and its effect on the training split."""
    root = caching.copied(world, tmp_path / "world")
    number = int(caching.store(root).captions([3])[0].split()[-1])
    (root / "data" / f"{number:03d}.txt").write_text("a red square")
    return root


@pytest.fixture
def table(monkeypatch):
    """The sources that the closing table is about, of each run."""
    seen = []
    monkeypatch.setattr(report, "caches", lambda sources, skipped: seen.append(sources[0]))
    return seen


def test_the_final_table_counts_rows_by_split_and_group(root, capsys):
    with pytest.raises(StaleCache, match=r"new or changed: 1 of 4 samples \(\d+\.png\)"):
        caching.extract(root, pretrained=False)
    caching.extract(root, "rebuild=true", pretrained=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "kept" in line]
    rows = [tuple(line.split(maxsplit=1)) for line in lines]
    assert rows == [
        ("encodings", "3 kept, 1 computed"),
        ("lune", "3 kept, 1 computed"),
        ("sol", "3 kept, 1 computed"),
        ("encodings", "3 kept, 0 computed"),
    ]


def test_intact_shards_of_an_unrequested_group_are_kept(root, table):
    """Sol's shards are kept if all their samples are; its other shards wait for a run with Sol."""
    caching.extract(root, "rebuild=true", "experts=lune", pretrained=False)
    assert table[-1].train.new_rows == {"encodings": 1, "lune": 1}
    store = caching.store(root)
    assert store.complete("lune") and store.pending("sol") == [1]
    caching.extract(root, pretrained=False)
    assert table[-1].train.new_rows == {"sol": 1}
    fresh = caching.copied(root, root.with_name("fresh"), caches=False)
    caching.extract(fresh, pretrained=False)
    assert caching.content(root) == caching.content(fresh)


@pytest.mark.parametrize(
    "damaged", ["encodings/shard_00000.safetensors", "sol/group.json", "keys.bin"]
)
def test_a_rebuild_copies_no_damaged_shard(root, table, capsys, damaged):
    file = root / "cache" / "folder" / "train" / damaged
    content = bytearray(file.read_bytes())
    content[-3] ^= 8
    file.write_bytes(content)
    caching.extract(root, "rebuild=true", pretrained=False)
    new_rows = {"encodings": 1, "lune": 1, "sol": 1}
    new_rows |= {
        "encodings/shard_00000.safetensors": {"encodings": 4},
        "sol/group.json": {"sol": 4},
    }.get(damaged, {})
    new_rows = dict.fromkeys(new_rows, 4) if damaged == "keys.bin" else new_rows
    assert table[-1].train.new_rows == new_rows
    assert "nothing can be reused of" in capsys.readouterr().out
    fresh = caching.copied(root, root.with_name("fresh"), caches=False)
    caching.extract(fresh, pretrained=False)
    assert caching.content(root) == caching.content(fresh)


def test_a_stopped_rebuild_resumes_and_the_old_cache_stays_usable(root, table, monkeypatch):
    before, real, written = caching.content(root), CacheStore.write_shard, []

    def stops(self, *arguments):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(real(self, *arguments))

    monkeypatch.setattr(CacheStore, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        caching.extract(root, "rebuild=true", pretrained=False)
    monkeypatch.setattr(CacheStore, "write_shard", real)
    after = caching.content(root)
    assert {name: after[name] for name in before} == before and len(after) > len(before)
    caching.extract(root, "rebuild=true", pretrained=False)
    assert sum(table[-1].train.new_rows.values()) == 2  # the sample's encoding was made before
    fresh = caching.copied(root, root.with_name("fresh"), caches=False)
    caching.extract(fresh, pretrained=False)
    assert caching.content(root) == caching.content(fresh)


def test_remains_of_a_rebuild_with_other_inputs_are_not_used(root, monkeypatch):
    real = CacheStore.write_shard
    monkeypatch.setattr(
        CacheStore, "write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        caching.extract(root, "rebuild=true", "data.fit_mode=pad", pretrained=False)
    monkeypatch.setattr(CacheStore, "write_shard", real)
    caching.extract(root, "rebuild=true", pretrained=False)
    fresh = caching.copied(root, root.with_name("fresh"), caches=False)
    caching.extract(fresh, pretrained=False)
    assert caching.content(root) == caching.content(fresh)


def test_a_complete_cache_needs_no_teacher_weights(tmp_path, monkeypatch, table):
    real = releases.all_of(tmp_path / "releases")
    photos = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    chosen = (
        *real,
        "data=folder",
        f"data.root='{photos}'",
        "data.image_size=32",
        "experts=lune_sol",
    )
    run_recipe("extract", tmp_path, *chosen, "hardware.precision=32-true")
    monkeypatch.setattr(teacher, "read_tensors", None)
    run_recipe("extract", tmp_path, *chosen, "hardware.precision=32-true")
    assert [cache.new_rows for cache in table[-1].caches.values()] == [{}, {}]


@pytest.mark.parametrize("batch", ["0", "-3", "many", "2.5"])
def test_an_invalid_extraction_batch_is_refused_before_writing(world, tmp_path, batch):
    fresh = caching.copied(world, tmp_path / "fresh", caches=False)
    with pytest.raises(ConfigError, match=r"extraction_batch (is|must be)"):
        caching.extract(fresh, f"data.extraction_batch={batch}", pretrained=False)
    assert not (fresh / "cache").exists()
