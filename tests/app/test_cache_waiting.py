"""Several processes fill one cache, a shard each; one that needs it alone waits or takes over."""

import signal
import time

import pytest

from tests.app.runs import configuration
from tests.faults.forks import Child
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.config import schema
from tinyflux_pl.core import interruption

PATIENCE = 60.0  # seconds


@pytest.fixture
def config(tmp_path):
    """Two shards of training pictures, one of validation."""
    return configuration("extract", tmp_path)


def alone(config):
    """Extract as a training does: other processes wait."""
    parts = Parts.from_config(schema.read(config, "extract"))
    prepare(parts)


def stopping_after_a_shard(work, go):
    """After the first shard is written, go on once `go` exists."""
    write = CacheStore.write_shard

    def stopping():
        def written(*arguments):
            write(*arguments)
            while not go.exists():
                time.sleep(0.01)

        CacheStore.write_shard = written
        work()

    return stopping


def stopping_before_a_shard(work, go):
    """Before the first shard is written, wait until `go` exists."""
    write = CacheStore.write_shard

    def stopping():
        def written(*arguments):
            while not go.exists():
                time.sleep(0.01)
            write(*arguments)

        CacheStore.write_shard = written
        work()

    return stopping


def wait_for(condition, *children):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert all(child.alive() for child in children) and time.monotonic() < end, [
            child.log.read_text()[-2000:] for child in children
        ]
        time.sleep(0.01)


def shards(root):
    return list((root / "cache" / "shapes").glob("*/encodings/shard_*.json"))


def waits(child):
    return lambda: "waiting for the cache" in child.log.read_text()


def begun(root):
    return list((root / "cache" / "shapes").glob("train/encodings/.writing"))


def contents(root):
    """Path -> bytes of every file of the cache but its locks."""
    folder = root / "cache"
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_two_processes_share_the_shards_and_write_the_bytes_of_one(tmp_path):
    line = ("experts=lune", "data.shard_size=8")
    roots = [tmp_path / name for name in ("one", "two")]
    configs = [configuration("extract", root, *line) for root in roots]
    recipes.extract(configs[0])
    go = roots[1] / "go"
    first_work = stopping_before_a_shard(lambda: recipes.extract(configs[1]), go)
    with Child(first_work, tmp_path / "first.log") as first:
        wait_for(lambda: begun(roots[1]), first)
        with Child(lambda: recipes.extract(configs[1]), tmp_path / "second.log") as second:
            wait_for(lambda: "waiting for 1 shards" in second.log.read_text(), first, second)
            go.touch()
            ended = [first.wait(), second.wait()]
    assert [end.code for end in ended] == [0, 0], ended[0].printed + ended[1].printed
    assert contents(roots[1]) == contents(roots[0])


def test_a_process_takes_the_shard_of_one_that_died(tmp_path, config):
    never = tmp_path / "never"
    work = stopping_before_a_shard(lambda: recipes.extract(config), never)
    with Child(work, tmp_path / "first.log") as first:
        wait_for(lambda: begun(tmp_path), first)
        with Child(lambda: recipes.extract(config), tmp_path / "second.log") as second:
            wait_for(lambda: "waiting for 1 shards" in second.log.read_text(), first, second)
            first.kill()
            ended = second.wait()
    assert ended.code == 0, ended.printed
    assert "0 kept, 48 computed" in ended.printed and len(shards(tmp_path)) == 3


def test_a_training_waits_for_those_that_share_a_cache(tmp_path, config):
    go = tmp_path / "go"
    work = stopping_before_a_shard(lambda: recipes.extract(config), go)
    with Child(work, tmp_path / "first.log") as first:
        wait_for(lambda: begun(tmp_path), first)
        with Child(lambda: alone(config), tmp_path / "second.log") as second:
            wait_for(waits(second), first, second)
            assert not shards(tmp_path)
            go.touch()
            ended = [first.wait(), second.wait()]
    assert [end.code for end in ended] == [0, 0], ended[1].printed
    assert "48 computed" in ended[0].printed and "waited" in ended[1].printed


def test_a_second_process_waits_for_the_cache_without_writing(tmp_path, config):
    go = tmp_path / "go"
    work = stopping_after_a_shard(lambda: alone(config), go)
    with Child(work, tmp_path / "first.log") as first:
        wait_for(lambda: shards(tmp_path), first)
        with Child(lambda: recipes.extract(config), tmp_path / "second.log") as second:
            wait_for(waits(second), first, second)
            go.touch()
            ended = [first.wait(), second.wait()]
    assert [end.code for end in ended] == [0, 0], ended[1].printed
    printed = ended[1].printed
    folder = tmp_path / "cache" / "shapes"
    assert f"waiting for the cache of shapes in {folder}, which process {first.pid} on" in printed
    assert "waited" in printed and "48 kept, 0 computed" in printed


def test_a_waiting_process_takes_over_from_a_dead_one(tmp_path, config):
    never = tmp_path / "never"
    with Child(
        stopping_after_a_shard(lambda: alone(config), never), tmp_path / "first.log"
    ) as first:
        wait_for(lambda: shards(tmp_path), first)
        with Child(lambda: recipes.extract(config), tmp_path / "second.log") as second:
            wait_for(waits(second), first, second)
            kept = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
            first.kill()
            ended = second.wait()
    assert ended.code == 0, ended.printed
    assert "32 kept, 16 computed" in ended.printed, "it continues what the other one began"
    assert len(kept) == 1 and all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert len(shards(tmp_path)) == 3


def test_a_waiting_process_stops_on_ctrl_c(tmp_path, config):
    def listening():
        with interruption.listening():
            recipes.extract(config)

    never = tmp_path / "never"
    with Child(
        stopping_after_a_shard(lambda: alone(config), never), tmp_path / "first.log"
    ) as first:
        wait_for(lambda: shards(tmp_path), first)
        with Child(listening, tmp_path / "second.log") as second:
            wait_for(waits(second), first, second)
            second.send(signal.SIGINT)
            ended = second.wait(10)
        assert first.alive() and ended.code == 1 and "stopped by SIGINT" in ended.printed
