"""Of several processes that need one cache, one fills it and the others wait or take over."""

import signal
import time

import pytest

from tests.app.runs import configuration
from tests.faults.forks import Child
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import interruption

PATIENCE = 60.0  # seconds


@pytest.fixture
def config(tmp_path):
    """Two shards of training pictures, one of validation."""
    return configuration("extract", tmp_path)


def stopping_after_a_shard(config, go):
    """Extract; after the first shard, go on once `go` exists."""
    write = CacheStore.write_shard

    def work():
        def written(*arguments):
            write(*arguments)
            while not go.exists():
                time.sleep(0.01)

        CacheStore.write_shard = written
        recipes.extract(config)

    return work


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


def test_a_second_process_waits_for_the_cache_without_writing(tmp_path, config):
    go = tmp_path / "go"
    with Child(stopping_after_a_shard(config, go), tmp_path / "first.log") as first:
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
    assert "0 kept, 48 computed" in ended[0].printed


def test_a_waiting_process_takes_over_from_a_dead_one(tmp_path, config):
    never = tmp_path / "never"
    with Child(stopping_after_a_shard(config, never), tmp_path / "first.log") as first:
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
    with Child(stopping_after_a_shard(config, never), tmp_path / "first.log") as first:
        wait_for(lambda: shards(tmp_path), first)
        with Child(listening, tmp_path / "second.log") as second:
            wait_for(waits(second), first, second)
            second.send(signal.SIGINT)
            ended = second.wait(10)
        assert first.alive() and ended.code == 1 and "stopped by SIGINT" in ended.printed
