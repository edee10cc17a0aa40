"""Networks leave in the layouts of other libraries, whose own loaders give the same outputs."""

import json

import pytest
import torch

from tests.denoisers import test_tinyflux, test_unet
from tests.denoisers.test_conformance import SMALL
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers.flux1_layout import to_diffusers, to_original
from tinyflux_pl.denoisers.network_export import TOLERANCE, exported, exported_branch
from tinyflux_pl.denoisers.released_control import ReleasedControl
from tinyflux_pl.denoisers.tinyflux_diffusers import tinyflux_model
from tinyflux_pl.methods.controlnet import ControlNet

RELEASED = ("flux1", "flux2", "flux3", "sd3", "sdxl")


def small(name):
    torch.manual_seed(0)
    denoiser = SMALL[name]()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return denoiser


@pytest.mark.parametrize("name", RELEASED)
def test_diffusers_reads_each_released_family_back(tmp_path, name):
    import diffusers

    denoiser = small(name)
    assert exported(denoiser, "diffusers", tmp_path / "out") <= TOLERANCE
    (inner,) = (tmp_path / "out").iterdir()
    assert inner.name == denoiser.released.subfolder
    kind = getattr(diffusers, denoiser.released.kind)
    read = kind.from_pretrained(tmp_path / "out", subfolder=inner.name, use_safetensors=True)
    state = denoiser.net.state_dict()
    assert read.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in read.state_dict().items())
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flux1", "FluxControlNetModel"),
        ("sd3", "SD3ControlNetModel"),
        ("sdxl", "ControlNetModel"),
    ],
)
def test_diffusers_reads_a_control_branch_back(tmp_path, name, kind):
    import diffusers

    denoiser = small(name)
    ControlNet().prepare(denoiser)
    with torch.no_grad():
        for parameter in denoiser.branch.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    assert exported_branch(denoiser, "diffusers", tmp_path / "out") <= TOLERANCE
    read = getattr(diffusers, kind).from_pretrained(tmp_path / "out", subfolder="controlnet")
    state = denoiser.branch.net.state_dict()
    assert read.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in read.state_dict().items())


def test_a_branch_read_back_with_other_weights_leaves_nothing(tmp_path, monkeypatch):
    denoiser = small("flux1")
    ControlNet().prepare(denoiser)
    write = ReleasedControl.write

    def changed(branch, folder):
        read = write(branch, folder)
        for parameter in read.parameters():
            parameter.data.add_(0.1)
        return read

    monkeypatch.setattr(ReleasedControl, "write", changed)
    with pytest.raises(CheckpointMismatch, match="output differs"):
        exported_branch(denoiser, "diffusers", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_branch_without_a_layout_elsewhere_is_refused(tmp_path):
    denoiser = test_tinyflux.denoiser()
    ControlNet().prepare(denoiser)
    with pytest.raises(ConfigError, match="for a control branch") as caught:
        exported_branch(denoiser, "diffusers", tmp_path / "out")
    assert "none" in caught.value.cure and not list(tmp_path.iterdir())


def test_tinyflux_is_a_folder_of_diffusers(tmp_path):
    denoiser = test_tinyflux.denoiser()
    assert exported(denoiser, "diffusers", tmp_path / "out") <= TOLERANCE
    config = json.loads((tmp_path / "out" / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "TinyFluxModel"
    assert config["network"]["hidden_size"] == denoiser.config.hidden_size
    read = tinyflux_model().from_pretrained(tmp_path / "out", subfolder="transformer")
    state = denoiser.net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in read.net.state_dict().items())


def test_flux1_round_trips_through_the_original_keys_bit_exactly(tmp_path):
    denoiser = small("flux1")
    state = denoiser.net.state_dict()
    original = to_original(state)
    assert "double_blocks.0.img_attn.norm.query_norm.scale" in original
    assert "single_blocks.0.linear1.weight" in original and not original.keys() & state.keys()
    back = to_diffusers(original)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    assert exported(denoiser, "bfl", tmp_path / "out") <= TOLERANCE
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    with pytest.raises(KeyError, match="no original name"):
        to_original({**state, "extra.weight": torch.zeros(1)})


def test_layouts_that_a_network_does_not_have_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no layout 'bfl'"):
        exported(small("sdxl"), "bfl", tmp_path / "out")
    with pytest.raises(ConfigError, match="no layout 'diffusers'") as caught:
        exported(test_unet.small(), "diffusers", tmp_path / "out")
    assert "none" in caught.value.cure and not (tmp_path / "out").exists()


def test_an_export_that_answers_otherwise_leaves_nothing(tmp_path, monkeypatch):
    denoiser = small("flux1")
    changed = {k: v + 0.1 for k, v in to_original(denoiser.net.state_dict()).items()}
    monkeypatch.setattr(type(denoiser), "original_tensors", lambda _: changed)
    with pytest.raises(CheckpointMismatch, match="differs by"):
        exported(denoiser, "bfl", tmp_path / "out")
    assert not list(tmp_path.iterdir())
