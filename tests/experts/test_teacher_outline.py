"""A published teacher loads lazily: fingerprints read no weights, files are hashed once."""

import os

import pytest
import torch

from tests import releases
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.core.files import sha256, write_tensors
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.experts import teacher as teachers
from tinyflux_pl.experts.teacher import sd15_flow
from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.weights import headers as weight_files
from tinyflux_pl.weights.headers import known_sha256, tensor_shapes


class FourChannels(PixelFolding):
    """The published UNets read four."""

    def __init__(self):
        super().__init__(1)
        self.latent_spec = type(self.latent_spec)(4, 8)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    releases.unet(4).save_pretrained(root / "sd15" / "unet")
    releases.flow_weights(root / "experts")
    return root


def load(release, dtype="float32"):
    text = HashedWords(releases.CLIP_WIDTH, 6)
    return sd15_flow(
        "lune", str(release / "sd15"), str(release / "experts"), FourChannels(), text, dtype=dtype
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_loaded_on_first_use_and_the_fingerprint_stays(release, monkeypatch, dtype):
    read, real = [], teachers.read_tensors
    monkeypatch.setattr(teachers, "read_tensors", lambda file: read.append(file) or real(file))
    teacher = load(release, dtype)
    before = teacher.fingerprint()
    assert not read and next(teacher.network.parameters()).is_meta
    teacher.to("cpu")
    assert (
        len(read) == 1 and teacher.fingerprint() == before and teacher.device == torch.device("cpu")
    )
    assert before["weights"] == sha256(release / "experts" / "sd15-flow-lune-unet.safetensors")
    assert not any(
        p.is_meta or p.requires_grad
        for p in (*teacher.denoiser.parameters(), *teacher.denoiser.buffers())
    )
    assert (
        not teacher.denoiser.training and teacher.dtype == getattr(torch, dtype) and len(read) == 1
    )
    weights = real(read[0])
    for name, value in teacher.denoiser.unet.state_dict().items():
        assert torch.equal(value, weights[name].to(value.dtype)), name


def test_a_lazily_loaded_teacher_equals_its_network(release):
    teacher, network = load(release), releases.unet(5).half().float().eval()
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.7])
    text = teacher.text.encode(["a red circle", "blue"])
    with torch.no_grad():
        expected = network(x, t * 1000, text.tokens, return_dict=False)[0]
        torch.testing.assert_close(
            teacher.denoiser(x, t, Conditioning(text)).sample, expected, atol=1e-5, rtol=1e-4
        )


def test_mismatched_weights_are_detected_from_the_header(release, tmp_path, monkeypatch):
    tensors = teachers.read_tensors(release / "experts" / "sd15-flow-lune-unet.safetensors")
    tensors["conv_in.bias"] = tensors["conv_in.bias"][:-1].contiguous()
    write_tensors(tmp_path / "experts" / "sd15-flow-lune-unet.safetensors", tensors)
    (tmp_path / "sd15").symlink_to(release / "sd15")
    monkeypatch.setattr(teachers, "read_tensors", None)
    with pytest.raises(CheckpointMismatch, match=r"conv_in\.bias \(7,\) for \(8,\)"):
        load(tmp_path)


def test_a_file_is_hashed_once_a_process_until_it_changes(tmp_path, monkeypatch):
    hashed, real = [], weight_files.sha256
    monkeypatch.setattr(weight_files, "sha256", lambda path: hashed.append(path) or real(path))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"one")
    assert known_sha256(file) == known_sha256(str(file)) == real(file) and len(hashed) == 1
    file.write_bytes(b"two")  # as long as before
    os.utime(file, (1, 1))
    assert known_sha256(file) == real(file) and len(hashed) == 2


def test_shapes_are_read_from_the_header(tmp_path):
    file = tmp_path / "x.safetensors"
    write_tensors(file, {"a": torch.zeros(2, 3), "b": torch.zeros(())})
    assert tensor_shapes(file) == {"a": (2, 3), "b": ()}
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(CorruptCheckpoint):
        tensor_shapes(file)
