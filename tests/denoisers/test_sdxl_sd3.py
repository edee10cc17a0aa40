"""SDXL and SD3.5 around diffusers' networks: sizes and single files in the original layout."""

import pytest
import torch

from tests import releases_stability as releases
from tests.original_layouts import sd3_original, unet_original
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, SpecMismatch
from tinyflux_pl.core.files import write_tensors
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import sd3, sdxl
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import LinearPath, VPPath

XL = (LatentSpec(4, 8), TextSpec(24, 77, 10), VPPath())
THREE = (LatentSpec(16, 8), TextSpec(32, 9, 20), LinearPath(noise_at=1))
FILE = "one, whole.safetensors"


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditioning(spec: TextSpec, **more) -> Conditioning:
    mask = torch.ones(2, spec.length, dtype=torch.bool)
    return Conditioning(
        TextEmbeddings(drawn(2, spec.length, spec.width), mask, drawn(2, spec.pooled)), **more
    )


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**releases.SDXL).eval()


@pytest.fixture(scope="module", params=[(), (0, 1)], ids=["large", "medium"])
def mmdit(request):
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    return SD3Transformer2DModel(**releases.SD35, dual_attention_layers=request.param).eval()


def structure(net) -> dict:
    return {key: value for key, value in net.config.items() if not key.startswith("_")}


def single_file(net, tmp_path, lacking: str = "") -> str:
    """A complete original checkpoint: the network under its prefix, and other parts."""
    original = unet_original(net) if hasattr(net, "conv_in") else sd3_original(net)
    tensors = {
        f"model.diffusion_model.{key}": value
        for key, value in original.items()
        if not (lacking and lacking in key)
    }
    if lacking:
        tensors["model.diffusion_model.stray.weight"] = torch.zeros(1)
    write_tensors(
        tmp_path / FILE, {**tensors, "first_stage_model.encoder.conv_in.weight": torch.zeros(2)}
    )
    return str(tmp_path / FILE)


def test_a_complete_sdxl_checkpoint_loads_strictly(unet, tmp_path):
    model = sdxl.build(
        *XL, weights=single_file(unet, tmp_path), structure=structure(unet), dtype="float32"
    )
    assert all(
        torch.equal(value, unet.state_dict()[key]) for key, value in model.net.state_dict().items()
    )
    lacking = single_file(unet, tmp_path, "input_blocks.1.0.in_layers.0.bias")
    with pytest.raises(
        CheckpointMismatch, match=r"1 missing: .*resnets\.0\.norm1\.bias; 1 unexpected: .*stray"
    ):
        sdxl.build(*XL, weights=lacking, structure=structure(unet))


def test_a_complete_sd3_checkpoint_loads_strictly(mmdit, tmp_path):
    model = sd3.build(
        *THREE, weights=single_file(mmdit, tmp_path), structure=structure(mmdit), dtype="float32"
    )
    assert all(
        torch.equal(value, mmdit.state_dict()[key]) for key, value in model.net.state_dict().items()
    )
    with pytest.raises(CheckpointMismatch):
        sd3.build(
            *THREE,
            weights=single_file(mmdit, tmp_path, "1.x_block.mlp.fc2.bias"),
            structure=structure(mmdit),
        )


@torch.no_grad()
def test_sdxl_reads_the_size_ids(unet, tmp_path):
    unet.save_pretrained(tmp_path / "unet")
    model = sdxl.build(*XL, weights=str(tmp_path), structure={}, dtype="float32")
    x, t = drawn(2, 4, 8, 6), torch.tensor([0.7, 0.2])
    sizes = torch.tensor([[64.0, 48, 0, 0, 64, 48]]).expand(2, -1)
    default = model(x, t, conditioning(XL[1])).sample
    assert torch.equal(default, model(x, t, conditioning(XL[1], size_ids=sizes)).sample)
    assert not torch.allclose(
        default, model(x, t, conditioning(XL[1], size_ids=sizes * 2)).sample, atol=1e-4
    )


def test_a_saved_description_rebuilds_the_network(unet, mmdit):
    for family, specs, net in ((sdxl.SDXLDenoiser, XL, unet), (sd3.SD3Denoiser, THREE, mmdit)):
        model = family(net, *specs)
        again = build_denoiser(model.name, model.config_dict(), specs[2])
        assert again.config_dict() == model.config_dict()
        again.load_state_dict(model.state_dict())


def test_incompatible_parts_and_inputs_are_refused(unet, mmdit):
    with pytest.raises(SpecMismatch, match="pooled width is 10"):
        sdxl.SDXLDenoiser(unet, XL[0], TextSpec(24, 77, 9), XL[2])
    with pytest.raises(SpecMismatch, match="path=vp"):
        sdxl.SDXLDenoiser(unet, XL[0], XL[1], THREE[2])
    with pytest.raises(SpecMismatch, match="noise at t = 1"):
        sd3.SD3Denoiser(mmdit, THREE[0], THREE[1], LinearPath())
    for side in (0, -64):
        with pytest.raises(ConfigError, match=f"image_size is {side}"):
            sdxl.SDXLDenoiser(unet, *XL[:3], image_size=side)
    with pytest.raises(ConfigError, match="no weights for SD3Transformer2DModel"):
        sd3.build(*THREE, structure=structure(mmdit))
