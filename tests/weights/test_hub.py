import hashlib
import json
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, HubError, UntrustedFile
from tinyflux_pl.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path):
    """Where the hub's client would put the files of COMMIT."""
    folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def asked(monkeypatch, snapshot):
    """A hub that records what it is asked for and hands out one folder."""
    calls = []

    def snapshot_download(repository, revision, allow_patterns):
        calls.append((repository, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_path_that_exists_wins(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert hub.resolve("owner/name") == Path("owner/name")
    assert not asked


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./weights", "a/b/c", "weights.safetensors", "out/w.safetensors"]
)
def test_a_missing_path_is_never_taken_for_a_repository(name, asked):
    with pytest.raises(ConfigError, match="no file or folder"):
        hub.resolve(name, COMMIT)
    with pytest.raises(ConfigError):
        hub.resolve(Path("owner/name"), COMMIT)
    assert not asked


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_a_repository_must_be_pinned(revision, asked):
    with pytest.raises(HubError, match="not pinned"):
        hub.resolve("owner/name", revision)
    assert not asked


def test_only_safe_files_are_fetched(snapshot, asked):
    (snapshot / "model.safetensors").write_bytes(b"")
    assert hub.resolve("owner/name", COMMIT) == snapshot
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("owner/name", COMMIT)
    assert all(pattern.endswith(hub.SAFE_SUFFIXES) for pattern in patterns)
    with pytest.raises(UntrustedFile, match=r"\*\.bin"):
        hub.resolve("owner/name", COMMIT, ["*.bin"])


def test_a_repository_without_safe_weights_is_an_error(asked):
    with pytest.raises(HubError, match="has none of"):
        hub.resolve("owner/name", COMMIT, ["*.safetensors"])


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route"),
        httpx2.ReadError("cut"),
        errors.XetDownloadError("cut"),
        errors.EntryNotFoundError(),
    ],
)
def test_whatever_the_client_raises_is_one_error_of_ours(error, monkeypatch):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        HubError, match=f"could not fetch owner/name@01234567: {type(error).__name__}"
    ):
        hub.resolve("owner/name", COMMIT)


def test_what_was_fetched_is_recorded_and_compared_ever_after(snapshot, asked):
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (snapshot / "notes.bin").write_bytes(b"not asked for")
    hub.resolve("owner/name", COMMIT)
    record = snapshot.parent.parent / f".tinyflux_sha256_{COMMIT}.json"
    assert json.loads(record.read_text()) == {
        "model.safetensors": hashlib.sha256(b"weights").hexdigest()
    }
    (snapshot / "config.json").write_text("{}")  # another pattern brings more of the same revision
    hub.resolve("owner/name", COMMIT)
    (snapshot / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(
        HubError,
        match=r"model\.safetensors of owner/name@01234567 is not the file that was fetched",
    ):
        hub.resolve("owner/name", COMMIT)
    for damaged in ("{", "[]", '{"model.safetensors": 3}'):
        record.write_text(damaged)
        with pytest.raises(HubError, match="record of hashes"):
            hub.resolve("owner/name", COMMIT)


def test_a_large_file_is_held_to_the_hash_that_the_hub_gave_it(snapshot, asked):
    """The client compares sizes alone, and keeps such a file under its sha256."""
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    blob = blobs / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blob)
    (blobs / ("0" * 40)).write_bytes(b"{}")  # a small one, under the hash that git gives it
    (snapshot / "config.json").symlink_to(blobs / ("0" * 40))
    assert hub.resolve("owner/name", COMMIT) == snapshot
    (snapshot.parent.parent / f".tinyflux_sha256_{COMMIT}.json").unlink()
    blob.write_bytes(b"weighty")
    with pytest.raises(HubError, match="is not the file that was fetched"):
        hub.resolve("owner/name", COMMIT)


def test_a_cache_that_cannot_be_written_is_read_all_the_same(snapshot, asked, monkeypatch):
    def full(*_):
        raise OSError(30, "Read-only file system")

    (snapshot / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(files, "write_json", full)
    with pytest.warns(UserWarning, match="cannot be recorded"):
        assert hub.resolve("owner/name", COMMIT) == snapshot
