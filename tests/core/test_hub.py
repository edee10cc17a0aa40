from pathlib import Path

import huggingface_hub
import pytest

from tinyflux_pl.core import hub
from tinyflux_pl.core.errors import ConfigError, HubError, UntrustedFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub that records what it is asked for and hands out one folder."""
    calls = []

    def snapshot_download(repository, revision, allow_patterns):
        calls.append((repository, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_path_that_exists_wins(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert hub.resolve("owner/name") == Path("owner/name")
    assert not asked


@pytest.mark.parametrize("name", ["/no/such/folder", "./weights", "a/b/c", "weights.safetensors", "out/w.safetensors"])
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


def test_only_safe_files_are_fetched(tmp_path, asked):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert hub.resolve("owner/name", COMMIT) == tmp_path
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("owner/name", COMMIT)
    assert all(pattern.endswith(hub.SAFE_SUFFIXES) for pattern in patterns)
    with pytest.raises(UntrustedFile, match=r"\*\.bin"):
        hub.resolve("owner/name", COMMIT, ["*.bin"])


def test_a_repository_without_safe_weights_or_out_of_reach_is_an_error(tmp_path, asked, monkeypatch):
    with pytest.raises(HubError, match="has none of"):
        hub.resolve("owner/name", COMMIT, ["*.safetensors"])

    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(HubError, match="could not fetch"):
        hub.resolve("owner/name", COMMIT)
