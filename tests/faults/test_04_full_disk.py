"""Fault 4: without space for a checkpoint the previous stays, and the error states the bytes."""

import ctypes
import errno
import os
import re
import resource
from pathlib import Path

import pytest

from tests.faults import forks
from tests.faults.conftest import times
from tests.faults.failpoints import before_changes, fail_at, tell
from tests.faults.saving import Saver, judged, staged
from tinyflux_pl.core.errors import DiskFull

NEW_USERS, NEW_MOUNTS = 0x10000000, 0x00020000
REMOUNT, PRIVATE = 0x20, (1 << 18) | 0x4000
needs = re.compile(
    r"no space to write step_0000002: .*; it needs ([\d,]+) bytes, ([\d,]+) bytes are free"
)


def refused(folder: Path, background: bool, side: int) -> str:
    """Save step 2 where it does not fit, over a valid step 1; the error message."""
    saver = Saver(folder, background, side=side)
    with pytest.raises(DiskFull) as caught:
        saver.save(2)
        saver.finish()
    return str(caught.value)


def stands(folder: Path, message: str, side: int) -> bool:
    """The old checkpoint loads, no file is left over, and the error states the needed bytes."""
    numbers = needs.search(message)
    enough = numbers is not None and int(numbers[1].replace(",", "")) >= 4 * 4 * side * side
    return judged(folder).step == 1 and not staged(folder) and enough


@pytest.mark.parametrize("background", [True, False])
def test_a_size_limit_at_any_offset_leaves_a_valid_checkpoint(tmp_path, figure, background):
    side, tried, passed = 64, 20, 0
    Saver(tmp_path / "checkpoints", background=False, side=side).save(1)
    largest = max(
        file.stat().st_size for file in (tmp_path / "checkpoints" / "step_0000001").iterdir()
    )
    for i in range(tried):

        def work(limit=largest * i // tried):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            message = refused(tmp_path / "checkpoints", background, side)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            print(message)

        ended = forks.run(work, tmp_path / "log")
        assert ended.code == 0, ended.printed
        passed += stands(tmp_path / "checkpoints", ended.printed, side)
    figure(
        4,
        f"a write limit at {tried} offsets, {'in a thread' if background else 'in training'}",
        passed,
        tried,
    )


def test_a_full_disk_at_any_change_leaves_a_valid_checkpoint(tmp_path, figure):
    """Also if the disk reports it only at fsync."""
    side, passed = 64, 0
    Saver(tmp_path / "checkpoints", background=False, side=side).save(1)

    def watched(act):
        before_changes(tmp_path / "checkpoints", act)
        saver = Saver(tmp_path / "checkpoints", True, side=side)
        saver.save(2)
        saver.finish()

    seen = forks.run(lambda: watched(tell), tmp_path / "log")
    changes = re.findall(r"^change \d+ (?!os\.rm|os\.remove).*$", seen.printed, re.MULTILINE)
    assert seen.code == 0 and len(changes) > 20, seen.printed
    tried = range(0, len(changes), times(3, 1))
    for i in tried:
        Saver(tmp_path / str(i) / "checkpoints", background=False, side=side).save(1)

        def work(folder=tmp_path / str(i) / "checkpoints", i=i):
            before_changes(folder, fail_at(lambda n, *_: n >= i, errno.ENOSPC))
            print(refused(folder, True, side))

        ended = forks.run(work, tmp_path / "log")
        assert ended.code == 0, ended.printed
        numbers = needs.search(ended.printed)
        passed += judged(tmp_path / str(i) / "checkpoints").step in (1, 2) and numbers is not None
    figure(4, "no space from any change to the disk on", passed, len(tried))


def test_a_real_full_disk_leaves_a_valid_checkpoint(tmp_path, figure):
    """A small disk in memory, which is all the child sees; with 20 amounts of free space left."""
    side, tried = 64, 20
    ended = forks.run(lambda: _on_small_disks(tmp_path, side, tried), tmp_path / "log")
    if ended.code == 77:
        pytest.skip("this system lets nobody mount a disk in memory")
    assert ended.code == 0, ended.printed
    figure(
        4, f"a real disk with {tried} amounts of free space", ended.printed.count("stands"), tried
    )


def _on_small_disks(mount: Path, side: int, tried: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if system.unshare(NEW_USERS | NEW_MOUNTS):
        raise SystemExit(77)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    disk = mount / "disk"
    disk.mkdir()
    if system.mount(b"none", b"/", None, PRIVATE, None) or _mount(system, disk, "8m", 0):
        raise SystemExit(77)
    folder = disk / "checkpoints"
    Saver(folder, background=False, side=side).save(1)
    used = sum(-(-file.stat().st_size // 4096) for file in folder.rglob("*") if file.is_file())
    for i in range(tried):
        assert not _mount(system, disk, f"{4 * (used + used * i // tried)}k", REMOUNT), os.strerror(
            ctypes.get_errno()
        )
        message = refused(folder, i % 2 == 0, side)
        assert not _mount(system, disk, "8m", REMOUNT)
        print("stands" if stands(folder, message, side) else message)


def _mount(system: ctypes.CDLL, disk: Path, size: str, flags: int) -> int:
    return system.mount(b"none", os.fsencode(disk), b"tmpfs", flags, f"size={size}".encode())
