"""What a picture's file says: names and hashes of all that decides it, and nothing of this
machine's folders.
"""

from pathlib import Path

import torch

from tinyflux_pl.inference import provenance
from tinyflux_pl.text.hashed_words import HashedWords


def test_places_are_named_by_their_last_part_alone(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    told = {
        "weights": str(tmp_path / "model.safetensors"),
        "parts": [str(tmp_path), "~/mine/sd35", "../x/y"],
    }
    said = provenance.strip_paths(
        {**told, "repository": "owner/name", "prompt": "left/right", "n": 3, "no": None}
    )
    assert said == {
        "weights": "model.safetensors",
        "parts": [tmp_path.name, "sd35", "y"],
        "repository": "owner/name",
        "prompt": "left/right",
        "n": 3,
        "no": None,
    }


def test_a_folder_that_looks_like_a_repository_is_a_place(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert provenance.strip_paths("owner/name") == "name"


def test_hashes_are_cut_and_other_text_is_not():
    digest = "0123456789abcdef" * 4
    said = provenance.shorten_hashes({"a": digest, "b": f"{digest}+{digest}", "c": ["cafe", "red"]})
    assert said == {"a": digest[:16], "b": f"{digest[:16]}+{digest[:16]}", "c": ["cafe", "red"]}


def test_a_file_is_known_by_its_content(tmp_path):
    files = [Path(tmp_path / name) for name in ("a", "b", "c")]
    for file, content in zip(files, (b"1", b"1", b"2"), strict=True):
        file.write_bytes(content)
    found = provenance.contents(files)
    assert found["a"] == found["b"] != found["c"]


def test_a_part_says_its_length():
    one, other = (provenance.part(HashedWords(8, length)) for length in (12, 24))
    assert one["name"] == "hashed" and one != other


def test_the_device_and_the_libraries_are_named():
    assert provenance.device_name(torch.device("cpu")) == "cpu" and "torch" in provenance.versions()
