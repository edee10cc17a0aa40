"""Metadata of an image: names and hashes of all that decides it, and no local folders."""

from pathlib import Path

import torch

from tinyflux_pl.inference import provenance
from tinyflux_pl.text.hashed_words import HashedWords


def test_paths_are_reduced_to_their_last_component(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    settings = {
        "weights": str(tmp_path / "model.safetensors"),
        "parts": [str(tmp_path), "~/mine/sd35", "../x/y"],
    }
    stripped = provenance.strip_paths(
        {**settings, "repository": "owner/name", "prompt": "left/right", "n": 3, "no": None}
    )
    assert stripped == {
        "weights": "model.safetensors",
        "parts": [tmp_path.name, "sd35", "y"],
        "repository": "owner/name",
        "prompt": "left/right",
        "n": 3,
        "no": None,
    }


def test_an_existing_folder_named_like_a_repository_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert provenance.strip_paths("owner/name") == "name"


def test_only_hashes_are_shortened():
    digest = "0123456789abcdef" * 4
    stripped = provenance.shorten_hashes(
        {"a": digest, "b": f"{digest}+{digest}", "c": ["cafe", "red"]}
    )
    assert stripped == {"a": digest[:16], "b": f"{digest[:16]}+{digest[:16]}", "c": ["cafe", "red"]}


def test_a_file_is_identified_by_its_content(tmp_path):
    files = [Path(tmp_path / name) for name in ("a", "b", "c")]
    for file, content in zip(files, (b"1", b"1", b"2"), strict=True):
        file.write_bytes(content)
    hashes = provenance.contents(files)
    assert hashes["a"] == hashes["b"] != hashes["c"]


def test_the_text_length_is_recorded():
    one, other = (provenance.part(HashedWords(8, length)) for length in (12, 24))
    assert one["name"] == "hashed" and one != other


def test_device_and_library_versions_are_recorded():
    assert provenance.device_name(torch.device("cpu")) == "cpu" and "torch" in provenance.versions()
