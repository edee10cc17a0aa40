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
def hub_calls(monkeypatch, snapshot):
    """A hub that records requests and returns one folder."""
    calls = []

    def snapshot_download(repository, revision, allow_patterns):
        calls.append((repository, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_an_existing_path_takes_precedence_over_a_repository(tmp_path, monkeypatch, hub_calls):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert hub.resolve("owner/name") == Path("owner/name")
    assert not hub_calls


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./weights", "a/b/c", "weights.safetensors", "out/w.safetensors"]
)
def test_a_missing_path_is_never_treated_as_a_repository(name, hub_calls):
    with pytest.raises(ConfigError, match="no file or folder"):
        hub.resolve(name, COMMIT)
    with pytest.raises(ConfigError):
        hub.resolve(Path("owner/name"), COMMIT)
    assert not hub_calls


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_a_repository_requires_a_pinned_revision(revision, hub_calls):
    with pytest.raises(HubError, match="not pinned"):
        hub.resolve("owner/name", revision)
    assert not hub_calls


def test_only_safe_files_are_fetched(snapshot, hub_calls):
    (snapshot / "model.safetensors").write_bytes(b"")
    assert hub.resolve("owner/name", COMMIT) == snapshot
    ((repository, revision, patterns),) = hub_calls
    assert (repository, revision) == ("owner/name", COMMIT)
    assert all(pattern.endswith(hub.SAFE_SUFFIXES) for pattern in patterns)
    with pytest.raises(UntrustedFile, match=r"\*\.bin"):
        hub.resolve("owner/name", COMMIT, ["*.bin"])


def test_a_repository_without_safe_weights_is_an_error(hub_calls):
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
def test_every_client_error_is_raised_as_hub_error(error, monkeypatch):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        HubError, match=f"could not fetch owner/name@01234567: {type(error).__name__}"
    ):
        hub.resolve("owner/name", COMMIT)


def test_fetched_files_are_recorded_and_compared_at_every_later_use(snapshot, hub_calls):
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


def test_a_large_file_must_match_the_hash_from_the_hub(snapshot, hub_calls):
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


def test_a_read_only_cache_is_still_read(snapshot, hub_calls, monkeypatch):
    def full(*_):
        raise OSError(30, "Read-only file system")

    (snapshot / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(files, "write_json", full)
    with pytest.warns(UserWarning, match="cannot be recorded"):
        assert hub.resolve("owner/name", COMMIT) == snapshot
