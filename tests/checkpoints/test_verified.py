"""A checkpoint is hashed once, and again when a file changes; an invalid one never passes."""

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
    calls, real = [], manifest.verify
    monkeypatch.setattr(manifest, "verify", lambda *args: (calls.append(args[0]), real(*args))[1])
    return calls


def test_a_second_verification_reads_no_file(saved, hashed):
    is_valid = VerifiedCache()
    assert is_valid(saved) and is_valid(saved) and len(hashed) == 1


@pytest.mark.parametrize("name", [manifest.WEIGHTS, manifest.AVERAGED, manifest.MANIFEST])
def test_a_changed_file_is_verified_again_and_so_is_its_repair(saved, hashed, name):
    is_valid, file = VerifiedCache(), saved / name
    assert is_valid(saved)
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    # of the same size, within one tick of the clock
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert not is_valid(saved) and not is_valid(saved)
    file.write_bytes(content)
    assert is_valid(saved)


def test_a_missing_checkpoint_or_file_is_invalid(saved, tmp_path):
    is_valid = VerifiedCache()
    assert is_valid(saved) and not is_valid(tmp_path / "step_2")
    (saved / manifest.AVERAGED).unlink()
    assert not is_valid(saved)


def test_a_replaced_file_of_equal_size_and_time_is_detected(saved, hashed):
    """Replaced by rename with the original times: only the inode differs."""
    is_valid, file = VerifiedCache(), saved / manifest.WEIGHTS
    assert is_valid(saved)
    content, times = file.read_bytes(), file.stat()
    other = saved.parent / "other"
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, file)
    assert file.stat().st_mtime_ns == times.st_mtime_ns and not is_valid(saved)
