"""TinyFlux with image inputs: references along the sequence, inpainting along the channels."""

from dataclasses import replace

import pytest
import torch

from tests.denoisers.test_tinyflux import LATENTS, PATH, denoiser, make_inputs
from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.packing import patchify
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.denoisers.tinyflux import build

INPAINT_CHANNELS = 6 + 16


def with_images(cond, **pictures):
    return replace(cond, **pictures)


@torch.no_grad()
@pytest.mark.parametrize("sol", [True, False])
def test_a_new_inpaint_input_leaves_the_output_of_the_base_unchanged(sol):
    base = denoiser(sol=sol)
    model = base.with_inpaint().eval()
    x, t, cond = make_inputs(8, 12)
    before = base(x, t, cond)
    after = model(x, t, with_images(cond, inpaint=torch.randn(2, INPAINT_CHANNELS, 8, 12) * 5))
    assert torch.equal(before.sample, after.sample)
    assert all(torch.equal(before.heads[name], after.heads[name]) for name in before.heads)


@torch.no_grad()
def test_adding_an_inpaint_input_keeps_dtype_mode_and_checkpointing():
    base = denoiser().to(torch.bfloat16)
    base.net.gradient_checkpointing = True
    model = base.with_inpaint()  # in the base's mode: in training, its dropout would tell otherwise
    assert (
        not model.training
        and model.net.gradient_checkpointing
        and model.inpaint_channels == INPAINT_CHANNELS
    )
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    x, t, cond = make_inputs()
    after = model(x, t, with_images(cond, inpaint=torch.randn(2, INPAINT_CHANNELS, 8, 8))).sample
    assert torch.equal(base(x, t, cond).sample, after) and not base.inpaint_channels
    with pytest.raises(ConfigError, match="it inpaints already"):
        model.with_inpaint()


def test_the_inpaint_input_receives_gradients_and_then_changes_the_output():
    model = denoiser().with_inpaint()
    x, t, cond = make_inputs()
    inpaint = torch.randn(2, INPAINT_CHANNELS, 8, 8)
    model(x, t, with_images(cond, inpaint=inpaint)).sample.square().mean().backward()
    weight = model.net.inpaint_in.weight
    assert weight.grad is not None and float(weight.grad.abs().max()) > 0
    with torch.no_grad():
        weight.sub_(weight.grad)
        first, second = (
            model(x, t, with_images(cond, inpaint=h)).sample for h in (inpaint, inpaint.flip(0))
        )
    assert not torch.allclose(first, second, atol=1e-4)


@torch.no_grad()
def test_the_inpaint_input_equals_additional_columns_of_img_in():
    model = denoiser().with_inpaint().eval()
    model.net.inpaint_in.weight.normal_()
    x, t, cond = make_inputs()
    inpaint = torch.randn(2, INPAINT_CHANNELS, 8, 8)
    seen = []
    model.net.double_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model(x, t, with_images(cond, inpaint=inpaint))
    weight = torch.cat([model.net.img_in.weight, model.net.inpaint_in.weight], 1)
    tokens = patchify(torch.cat([x, inpaint], 1), 2)
    torch.testing.assert_close(
        seen[0], tokens @ weight.T + model.net.img_in.bias, rtol=1e-4, atol=1e-4
    )


def test_a_new_network_can_have_the_input_and_is_rebuilt_with_it():
    model = denoiser(inpaint=True)
    again = build_denoiser("tinyflux", model.config_dict(), PATH)
    assert model.inpaint_channels == again.inpaint_channels == INPAINT_CHANNELS
    again.load_state_dict(model.state_dict())
    fresh = build(
        LatentSpec(12, 2),
        TextSpec(12, 7, 10),
        PATH,
        inpaint=True,
        num_double_layers=1,
        num_single_layers=1,
    )
    assert fresh.inpaint_channels == 12 + 4 and not fresh.net.inpaint_in.weight.any()


def test_inpaint_masks_are_required_or_refused_by_the_inputs_of_the_network():
    x, t, cond = make_inputs()
    inpaint = torch.zeros(2, INPAINT_CHANNELS, 8, 8)
    with pytest.raises(ConfigError, match="does not inpaint"):
        denoiser()(x, t, with_images(cond, inpaint=inpaint))
    with pytest.raises(ConfigError, match="given no masked picture"):
        denoiser(inpaint=True)(x, t, cond)
    with pytest.raises(ConfigError, match="at once"):
        denoiser(inpaint=True)(x, t, with_images(cond, inpaint=inpaint, references=(x,)))


@torch.no_grad()
def test_a_prediction_depends_on_content_position_and_order_of_references():
    model = denoiser()
    x, t, cond = make_inputs(8, 12)
    first, second = torch.randn(2, 6, 4, 8), torch.randn(2, 6, 8, 8)
    alone = model(x, t, cond).sample
    both = model(x, t, with_images(cond, references=(first, second))).sample
    assert both.shape == alone.shape
    swapped = model(x, t, with_images(cond, references=(second, first))).sample
    moved = model(x, t, with_images(cond, references=(first.roll(2, -1), second))).sample
    for other in (alone, swapped, moved):
        assert not torch.allclose(both, other, atol=1e-5)
    # one sample's references are nothing to its neighbour
    mixed = model(
        x, t, with_images(cond, references=(torch.stack([first[0], second[1, :, :4]]), second))
    ).sample
    torch.testing.assert_close(mixed[0], both[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_references_do_not_enter_the_attention_map():
    """The map is read over the image alone, and references weigh its mean, whatever their size."""
    model = denoiser()
    x, t, cond = make_inputs()
    seen = []
    model.net.double_blocks[0].attn.spatial_to_mod.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    model(x, t, cond)
    model(x, t, with_images(cond, references=(torch.randn(2, 6, 16, 16),)))
    alone, with_references = seen
    torch.testing.assert_close(with_references[:, :16], alone)
    torch.testing.assert_close(with_references[:, 16:], alone.mean(-1, keepdim=True).expand(-1, 64))


def test_the_inpaint_input_holds_masked_latents_and_folded_mask():
    codec = PixelFolding(4)
    images, masks = torch.rand(1, 3, 8, 8) * 2 - 1, torch.zeros(1, 1, 8, 8)
    masks[..., 1, 6] = 1
    channels = inpaint_input(codec, images, masks)
    assert channels.shape == (1, 48 + 16, 2, 2)
    # row 1, column 2 of the cell (0, 1)
    assert channels[0, 48:].nonzero().tolist() == [[1 * 4 + 2, 0, 1]]
    grey = images.clone()
    grey[..., 1, 6] = 0
    torch.testing.assert_close(channels[:, :48], codec.encode(grey))
    assert LATENTS.channels + LATENTS.downsample**2 == INPAINT_CHANNELS
