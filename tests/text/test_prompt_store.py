"""Stored prompts: a list of prompts is encoded once, and any change of it or the encoder again."""

import pytest
import torch

from tests.core.minimal_parts import MinimalText
from tinyflux_pl.core import files
from tinyflux_pl.text.prompt_store import StoredPrompts


class Counted(MinimalText):
    def __init__(self, version=1):
        self.calls, self.version = 0, version

    def encode(self, prompts):
        self.calls += 1
        return super().encode(prompts)

    def fingerprint(self):
        return {"version": self.version}


def same(a, b):
    pairs = ((a.tokens, b.tokens), (a.mask, b.mask), (a.pooled, b.pooled))
    return all(torch.equal(x, y) for x, y in pairs)


def test_an_unchanged_prompt_list_loads_no_encoder(tmp_path):
    first, later = Counted(), Counted()
    written = StoredPrompts(first, tmp_path)
    text, null = written.encode(["red", "a blue one"]), written.null()
    read = StoredPrompts(later, tmp_path)
    assert same(read.encode(["red", "a blue one"]), text) and same(read.null(), null)
    assert first.calls == 2 and later.calls == 0


@pytest.mark.parametrize("prompts", [["a blue one", "red"], ["red"], ["red", "a blue one", ""]])
def test_a_changed_prompt_list_is_encoded(tmp_path, prompts):
    StoredPrompts(Counted(), tmp_path).encode(["red", "a blue one"])
    other = Counted()
    assert same(StoredPrompts(other, tmp_path).encode(prompts), MinimalText().encode(prompts))
    assert other.calls == 1


def test_stored_embeddings_of_another_encoder_are_not_used(tmp_path):
    StoredPrompts(Counted(), tmp_path).encode(["red"])
    other = Counted(version=2)
    StoredPrompts(other, tmp_path).encode(["red"])
    assert other.calls == 1


def test_a_truncated_store_file_is_written_again(tmp_path):
    StoredPrompts(Counted(), tmp_path).encode(["red"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    again = Counted()
    assert same(StoredPrompts(again, tmp_path).encode(["red"]), MinimalText().encode(["red"]))
    assert again.calls == 1 and "red" not in file.name


def test_another_device_has_embeddings_of_its_own(tmp_path):
    """The last bits of an embedding are the device's."""
    StoredPrompts(Counted(), tmp_path).encode(["red"])
    other = Counted()
    StoredPrompts(other, tmp_path).to("meta").encode(["red"])
    assert other.calls == 1 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("change", ["widths", "parts"])
def test_a_stored_file_that_does_not_fit_is_written_again(tmp_path, change):
    StoredPrompts(Counted(), tmp_path).encode(["red"])
    (file,) = tmp_path.iterdir()
    stored = files.read_tensors(file)
    if change == "parts":
        del stored["pooled"]
    else:
        stored["tokens"] = torch.zeros(1, 2, 1)
    files.write_tensors(file, stored, {})
    for calls in (1, 0):
        again = Counted()
        assert same(StoredPrompts(again, tmp_path).encode(["red"]), MinimalText().encode(["red"]))
        assert again.calls == calls
