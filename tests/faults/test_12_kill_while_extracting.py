"""Fault 12: extraction killed again and again, at any batch size: the same store in the end."""

import random
import time

import pytest
import torch

from tests.faults import caching
from tests.faults.conftest import times
from tests.faults.forks import Child, run
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core import rng
from tinyflux_pl.core.file_lock import FILLING

BATCHES = (1, 3, 8)
EXACT = ("data.store_dtype=float32", "data.validation_fraction=0.1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return caching.make(tmp_path_factory.mktemp("world") / "world", pictures=15, pretrained=False)


@pytest.fixture(scope="module")
def noise():
    """(sample, bucket) -> every noise that a teacher was shown for it."""
    seen, drawn = {}, rng.normal

    def normal(shape, seed, stream, sample_ids, step=0):
        values = drawn(shape, seed, stream, sample_ids, step)
        for sample_id, row in zip(sample_ids, values, strict=True):
            seen.setdefault((sample_id, step), []).append(row)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "normal", normal)
        yield seen


@pytest.fixture(scope="module")
def uninterrupted(world, noise):
    """Batch size -> the project with the cache of an uninterrupted run, and its configuration."""
    stores = {}
    for batch in BATCHES:
        root = caching.copied(world, world.with_name(f"whole_{batch}"))
        config = caching.config(root, *EXACT, f"data.extraction_batch={batch}", pretrained=False)
        recipes.extract(config)
        stores[batch] = root, config
    return stores


def begun(root, child):
    """Wait until the child holds the cache, and is about to write."""
    lock = root / "cache" / "folder" / FILLING
    while child.alive() and not (lock.exists() and lock.read_text().startswith(f"{child.pid} ")):
        time.sleep(0.001)


def killed_until_done(root, config, moments):
    """Extract, killed again and again until it finishes; the number of kills."""
    for kills, moment in enumerate(moments):
        with Child(lambda: recipes.extract(config), root / f"{kills}.log") as child:
            begun(root, child)
            time.sleep(moment)
            if not child.alive():
                assert child.wait().code == 0, child.log.read_text()[-3000:]
                return kills
            child.kill()
    ended = run(lambda: recipes.extract(config), root / "last.log")
    assert ended.code == 0, ended.printed[-3000:]
    return len(moments)


@pytest.fixture(scope="module")
def span(world, uninterrupted):
    """Duration of extraction from its first possible write."""
    origin, config = uninterrupted[BATCHES[0]]
    root = caching.copied(world, world.with_name("timed"))
    with Child(lambda: recipes.extract(caching.moved(config, origin, root)), root / "log") as child:
        begun(root, child)
        started = time.monotonic()
        assert child.wait().code == 0
    return time.monotonic() - started


@pytest.mark.parametrize("batch", BATCHES)
def test_an_extraction_killed_at_any_time_resumes_to_the_same_store(
    world, uninterrupted, span, tmp_path, batch, figure
):
    required, kills, stores = times(3, 34), 0, 0
    drawn, (origin, config) = random.Random(batch), uninterrupted[batch]
    expected = caching.content(origin)
    if batch == 3:  # with two threads, of which each teacher's two copies have one
        config = {**config, "hardware": {**config["hardware"], "threads": 2}}
    while kills < required:
        root = caching.copied(world, tmp_path / str(stores))
        moments = [drawn.uniform(0.0, 0.6 * span) for _ in range(required - kills)]
        kills += killed_until_done(root, caching.moved(config, origin, root), moments)
        assert caching.content(root) == expected
        stores += 1
    figure(
        12,
        f"killed while extracting, batch {batch}: the same store",
        kills,
        required,
        f"{stores} stores",
    )


def test_features_do_not_depend_on_the_batch(uninterrupted, figure):
    first, *other_stores = (caching.store(root) for root, _ in uninterrupted.values())
    rows, passed = range(len(first)), 0
    for other in other_stores:
        assert torch.equal(other.gather("latents", rows), first.gather("latents", rows))
        keys = [key for group in ("lune", "sol") for key in first.layout(group)]
        passed += all(
            (other.gather(k, rows) - first.gather(k, rows)).abs().max() <= 1e-5 for k in keys
        )
        for key in keys:
            assert first.gather(key, rows).flatten(1).std(0).max() > 0, (
                f"{key} is the same for every picture"
            )
    figure(12, "features at batch sizes 3 and 8 within 1e-5 of those at 1", passed, 2)


def test_the_noise_of_a_sample_depends_on_the_sample_alone(uninterrupted, noise, figure):
    """Every teacher receives equal noise for a sample and bucket in any batch."""
    assert len(noise) == 10 * len(caching.store(uninterrupted[1][0]))
    identical = sum(all(torch.equal(row, rows[0]) for row in rows) for rows in noise.values())
    assert all(len(rows) >= 2 * len(BATCHES) for rows in noise.values())  # two teachers
    assert len({rows[0].sum().item() for rows in noise.values()}) == len(noise)
    figure(12, "noise of a sample and bucket the same at every batch size", identical, len(noise))
