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
        found = drawn(shape, seed, stream, sample_ids, step)
        for sample_id, row in zip(sample_ids, found, strict=True):
            seen.setdefault((sample_id, step), []).append(row)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "normal", normal)
        yield seen


@pytest.fixture(scope="module")
def whole(world, noise):
    """Batch size -> the world with the cache of a run that nobody disturbed, and its
    configuration.
    """
    found = {}
    for batch in BATCHES:
        root = caching.copied(world, world.with_name(f"whole_{batch}"))
        config = caching.config(root, *EXACT, f"data.extraction_batch={batch}", pretrained=False)
        recipes.extract(config)
        found[batch] = root, config
    return found


def begun(root, child):
    """Wait until the child holds the cache, and is about to write."""
    lock = root / "cache" / "folder" / ".lock"
    while child.alive() and not (lock.exists() and lock.read_text().startswith(f"{child.pid} ")):
        time.sleep(0.001)


def killed_until_done(root, config, moments):
    """Extract, killed at the next moment, again and again until it ends by itself; how many kills
    it took.
    """
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
def span(world, whole):
    """How long extraction takes, from the moment it may write."""
    origin, config = whole[BATCHES[0]]
    root = caching.copied(world, world.with_name("timed"))
    with Child(lambda: recipes.extract(caching.moved(config, origin, root)), root / "log") as child:
        begun(root, child)
        started = time.monotonic()
        assert child.wait().code == 0
    return time.monotonic() - started


@pytest.mark.parametrize("batch", BATCHES)
def test_an_extraction_killed_at_any_time_resumes_to_the_same_store(
    world, whole, span, tmp_path, batch, figure
):
    wanted, kills, stores = times(3, 34), 0, 0
    drawn, (origin, config) = random.Random(batch), whole[batch]
    expected = caching.content(origin)
    if batch == 3:  # with two threads, of which each teacher's two copies have one
        config = {**config, "hardware": {**config["hardware"], "threads": 2}}
    while kills < wanted:
        root = caching.copied(world, tmp_path / str(stores))
        moments = [drawn.uniform(0.0, 0.6 * span) for _ in range(wanted - kills)]
        kills += killed_until_done(root, caching.moved(config, origin, root), moments)
        assert caching.content(root) == expected
        stores += 1
    figure(
        12,
        f"killed while extracting, batch {batch}: the same store",
        kills,
        wanted,
        f"{stores} stores",
    )


def test_features_do_not_depend_on_the_batch(whole, figure):
    first, *others = (caching.store(root) for root, _ in whole.values())
    rows, held = range(len(first)), 0
    for other in others:
        assert torch.equal(other.gather("latents", rows), first.gather("latents", rows))
        keys = [key for group in ("lune", "sol") for key in first.layout(group)]
        held += all(
            (other.gather(k, rows) - first.gather(k, rows)).abs().max() <= 1e-5 for k in keys
        )
        for key in keys:
            assert first.gather(key, rows).flatten(1).std(0).max() > 0, (
                f"{key} is the same for every picture"
            )
    figure(12, "features at batch sizes 3 and 8 within 1e-5 of those at 1", held, 2)


def test_the_noise_of_a_sample_depends_on_the_sample_alone(whole, noise, figure):
    """Every teacher saw the same noise for a sample and a bucket, whatever was beside it."""
    assert len(noise) == 10 * len(caching.store(whole[1][0]))
    identical = sum(all(torch.equal(row, rows[0]) for row in rows) for rows in noise.values())
    assert all(len(rows) >= 2 * len(BATCHES) for rows in noise.values())  # two teachers
    assert len({rows[0].sum().item() for rows in noise.values()}) == len(noise)
    figure(12, "noise of a sample and bucket the same at every batch size", identical, len(noise))
