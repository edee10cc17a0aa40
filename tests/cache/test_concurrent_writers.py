"""One writer at a time, killed at any instant or on a full disk, never damages existing data."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.stores import PARTS, shard_faults, written
from tinyflux_pl.cache.disk_space import require_disk_space
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import DataError, DiskFull
from tinyflux_pl.core.file_lock import locked


def test_a_second_writer_is_refused_and_the_lock_of_a_dead_one_is_free(tmp_path):
    CacheStore.create(tmp_path, "toy", 4, 2, {})
    program = (
        "import sys, time; from tinyflux_pl.cache.store import CacheStore\n"
        "with CacheStore.open(sys.argv[1]).writing(): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"written by process {other.pid}"):
            CacheStore.open(tmp_path).begin_group("encodings", PARTS)
    finally:
        other.kill()
        other.wait()
    with CacheStore.open(tmp_path).writing() as store:
        store.begin_group("encodings", PARTS)  # the lock is its own: no deadlock


def test_kill_9_at_any_instant_leaves_every_listed_shard_complete(tmp_path):
    program = (
        "import sys, torch; from tinyflux_pl.cache.store import CacheStore\n"
        "s = CacheStore.create(sys.argv[1], 'toy', 800, 2, {}); s.begin_group('encodings', {})\n"
        "print('on', flush=True)\n"
        "for k in s.pending('encodings'): s.write_shard('encodings', k, {'x': torch.full((2, "
        "9000), float(k))})"
    )
    drawn = random.Random(0)
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    counts = []
    for _ in range(8):  # stop it at random instants and look; then kill it for good
        time.sleep(drawn.uniform(0.005, 0.05))
        os.kill(child.pid, signal.SIGSTOP)
        store = CacheStore.open(tmp_path)
        done = sorted(set(range(store.shards)) - set(store.pending("encodings")))
        assert done == list(range(len(done)))
        assert not done or store.gather("x", [2 * k for k in done])[:, 0].tolist() == done
        counts.append(len(done))
        os.kill(child.pid, signal.SIGCONT)
    child.kill()
    child.wait()
    assert 0 < counts[-1] < 400 and counts == sorted(counts)
    CacheStore.open(tmp_path).begin_group("encodings", {})  # sweeps up what the dead writer left
    assert not list((tmp_path / "encodings").glob(".*.part"))


def test_a_full_disk_is_reported_before_and_during_writing_and_existing_shards_stay(
    tmp_path, monkeypatch
):
    store = written(tmp_path)
    store.begin_group("sol", {})
    assert require_disk_space(store, "sol", {"stats": torch.zeros(1, 10, 4)}) == 7 * 160
    with pytest.raises(DiskFull, match=r"needs .* MiB"):
        require_disk_space(store, "sol", {"stats": torch.zeros(1, 1).expand(1, 2**50)})

    import safetensors.torch

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(DiskFull):
        store.write_shard("sol", 0, {"stats": torch.ones(3, 4)})
    assert {f.split("/")[0] for f in shard_faults(store)} == {"sol"}  # only what is pending
    assert (
        store.complete("encodings") and store.complete("lune") and store.pending("sol") == [0, 1, 2]
    )


def test_a_lock_error_waits_for_the_owner_to_write_its_process_id(tmp_path):
    """Between locking and writing its id, the file may name a dead owner or none."""
    program = (
        "import fcntl, os, sys, time\n"
        "lock = open(sys.argv[1], 'a+'); fcntl.flock(lock, fcntl.LOCK_EX); print('held', "
        "flush=True)\n"
        "time.sleep(0.3); lock.truncate(0); lock.write(str(os.getpid())); lock.flush(); "
        "time.sleep(60)"
    )
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / ".lock").write_text(str(gone.pid))
    owner = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / ".lock"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"written by process {owner.pid}"), locked(tmp_path):
            pass
    finally:
        owner.kill()
        owner.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} on {os.uname().nodename}"
    assert (tmp_path / ".lock").read_text() == ""


def test_a_shard_being_replaced_is_not_listed(tmp_path, monkeypatch):
    """Killed between shard and record: other bytes of equal size may not match the old record."""
    from tinyflux_pl.cache import shards as cache_group

    store, real = written(tmp_path), cache_group.files.write_tensors
    assert store.complete("lune")

    def killed(path, tensors, *more):
        real(path, tensors, *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_group.files, "write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write_shard("lune", 1, {"features": torch.full((3, 2, 8), 9.0)})
    assert (
        CacheStore.open(tmp_path).pending("lune") == [1]
        and "lune/shard_00001" in shard_faults(CacheStore.open(tmp_path))[0]
    )
