"""A checkpoint is hashed once, and again as soon as a file of it is another; one that is not
is_valid never passes.
"""

import os

import pytest
import torch

from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.checkpoints.verified import VerifiedCache


@pytest.fixture
def saved(tmp_path):
    weights = {"w": torch.ones(3)}
    path = tmp_path / "step_1"
    return directory.save(
        path, step=1, config={}, weights=weights, averaged=weights, state=None
    ).path


@pytest.fixture
def hashed(monkeypatch):
    asked, real = [], manifest.verify
    monkeypatch.setattr(
        manifest, "verify", lambda *given: (asked.append(given[0]), real(*given))[1]
    )
    return asked


def test_the_second_question_reads_nothing(saved, hashed):
    is_valid = VerifiedCache()
    assert is_valid(saved) and is_valid(saved) and len(hashed) == 1


@pytest.mark.parametrize("name", [manifest.WEIGHTS, manifest.AVERAGED, manifest.MANIFEST])
def test_a_changed_file_is_seen_and_its_repair_too(saved, hashed, name):
    is_valid, file = VerifiedCache(), saved / name
    assert is_valid(saved)
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    # of the same size, within one tick of the clock
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert not is_valid(saved) and not is_valid(saved)
    file.write_bytes(content)
    assert is_valid(saved)


def test_what_is_gone_or_was_never_there_is_not_whole(saved, tmp_path):
    is_valid = VerifiedCache()
    assert is_valid(saved) and not is_valid(tmp_path / "step_2")
    (saved / manifest.AVERAGED).unlink()
    assert not is_valid(saved)


def test_another_file_of_the_same_size_and_time_is_seen(saved, hashed):
    """Put in its place by a rename, with the times of the first: only the inode tells."""
    is_valid, file = VerifiedCache(), saved / manifest.WEIGHTS
    assert is_valid(saved)
    content, times = file.read_bytes(), file.stat()
    other = saved.parent / "other"
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, file)
    assert file.stat().st_mtime_ns == times.st_mtime_ns and not is_valid(saved)
