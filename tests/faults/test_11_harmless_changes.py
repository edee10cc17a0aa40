"""Fault 11: what does not decide a cache changes, and nothing is made again."""

import functools
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.faults import caching
from tests.faults.forks import Child
from tinyflux_pl.app.caches import ranks, sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.reporting import report
from tinyflux_pl.config import schema
from tinyflux_pl.training.datamodule import CachedLatents


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
    "moved root": (
        lambda root: Path(shutil.move(root, root.with_name("elsewhere [2], moved"))),
        (),
    ),
    "batch size": (
        None,
        ("hardware.batch_size=4", "hardware.accumulation=2", "data.extraction_batch=3"),
    ),
    "order": (in_another_order, ()),
    "precision of training": (None, ("hardware.precision=bf16-mixed",)),
}
STEPS = 3


def test_harmless_changes_recompute_nothing(world, tmp_path, monkeypatch, figure):
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
        rebuilt += any(n for cache in source.caches.values() for n in cache.new_rows.values())
        seen.clear()
    tried = len(HARMLESS)
    figure(
        11, "mtime, moved root, batch size, order: nothing is made again", tried - rebuilt, tried
    )


def served(config, workers=0, rank=None, world=1):
    """The use of caches before a run's first step, and the ids of its first micro-batches."""
    if rank is not None:
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
        }
        os.environ.update({key: str(value) for key, value in environment.items()})
    prepared = ranks.prepare_on_rank_zero(Parts.from_config(schema.read(config, "train")))
    recomputed = sum(
        n
        for source in prepared
        for cache in source.caches.values()
        for n in cache.new_rows.values()
    )
    train, validation = sources.datasets(prepared, in_memory=False)
    data = CachedLatents(train, validation, 2, stop_step=STEPS, workers=workers)
    if rank is None:
        return recomputed, [batch.sample_ids.tolist() for batch in data.train_dataloader()]
    rows = [data.order.rank_slice(step, rank, world) for step in range(STEPS)]
    return recomputed, [train.__getitems__(chosen).sample_ids.tolist() for chosen in rows]


def _stored(root):
    """Path -> time and bytes of each file of the stores; not of the index of a copied folder."""
    files = (path for path in (root / "cache").rglob("*") if path.is_file())
    stored = [path for path in files if "decoded." not in path.name]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in stored}


def test_workers_and_ranks_read_the_existing_cache(world, tmp_path, figure):
    """Two worker processes, then two real ranks: no row is computed, equal samples are drawn."""
    root = caching.copied(world, tmp_path / "ranks")
    config = caching.config(root, task="train", pretrained=False)
    before = _stored(root)
    recomputed, alone = served(config)
    with_workers = served(config, workers=2)

    def work(rank):
        (tmp_path / f"{rank}.json").write_text(json.dumps(served(config, rank=rank, world=2)))

    children = [Child(functools.partial(work, rank), tmp_path / f"{rank}.log") for rank in range(2)]
    for child in children:
        ended = child.wait()
        assert ended.code == 0, ended.printed[-2000:]
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    joint = [one + other for one, other in zip(shares[0][1], shares[1][1], strict=True)]
    after = _stored(root)
    equal = [
        recomputed == 0 and with_workers == (0, alone),
        [share[0] for share in shares] == [0, 0] and joint == alone and before == after,
    ]
    figure(
        11,
        "2 workers, 2 ranks: nothing is made again, the same samples drawn",
        sum(equal),
        len(equal),
    )
