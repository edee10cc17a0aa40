"""TinyFlux told pictures: references along the sequence, a picture with a hole along the
channels.
"""

from dataclasses import replace

import pytest
import torch

from tests.denoisers.test_tinyflux import LATENTS, PATH, denoiser, given
from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.packing import patchify
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.denoisers.tinyflux import build

HOLE = 6 + 16


def told(cond, **pictures):
    return replace(cond, **pictures)


@torch.no_grad()
@pytest.mark.parametrize("sol", [True, False])
def test_with_an_inpaint_input_step_0_is_the_base_exactly(sol):
    base = denoiser(sol=sol)
    made = base.with_inpaint().eval()
    x, t, cond = given(8, 12)
    before = base(x, t, cond)
    after = made(x, t, told(cond, inpaint=torch.randn(2, HOLE, 8, 12) * 5))
    assert torch.equal(before.sample, after.sample)
    assert all(torch.equal(before.heads[name], after.heads[name]) for name in before.heads)


@torch.no_grad()
def test_the_input_comes_to_a_network_as_it_is():
    base = denoiser().to(torch.bfloat16)
    base.net.gradient_checkpointing = True
    made = base.with_inpaint()  # in the base's mode: in training, its dropout would tell otherwise
    assert not made.training and made.net.gradient_checkpointing and made.inpaint_channels == HOLE
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
    x, t, cond = given()
    after = made(x, t, told(cond, inpaint=torch.randn(2, HOLE, 8, 8))).sample
    assert torch.equal(base(x, t, cond).sample, after) and not base.inpaint_channels
    with pytest.raises(ConfigError, match="it fills holes already"):
        made.with_inpaint()


def test_the_new_weights_learn_and_then_the_picture_tells():
    made = denoiser().with_inpaint()
    x, t, cond = given()
    hole = torch.randn(2, HOLE, 8, 8)
    made(x, t, told(cond, inpaint=hole)).sample.square().mean().backward()
    weight = made.net.inpaint_in.weight
    assert weight.grad is not None and float(weight.grad.abs().max()) > 0
    with torch.no_grad():
        weight.sub_(weight.grad)
        first, second = (made(x, t, told(cond, inpaint=h)).sample for h in (hole, hole.flip(0)))
    assert not torch.allclose(first, second, atol=1e-4)


@torch.no_grad()
def test_the_input_is_more_columns_of_img_in():
    made = denoiser().with_inpaint().eval()
    made.net.inpaint_in.weight.normal_()
    x, t, cond = given()
    hole = torch.randn(2, HOLE, 8, 8)
    seen = []
    made.net.double_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    made(x, t, told(cond, inpaint=hole))
    weight = torch.cat([made.net.img_in.weight, made.net.inpaint_in.weight], 1)
    tokens = patchify(torch.cat([x, hole], 1), 2)
    torch.testing.assert_close(
        seen[0], tokens @ weight.T + made.net.img_in.bias, rtol=1e-4, atol=1e-4
    )


def test_a_new_network_can_have_the_input_and_is_rebuilt_with_it():
    made = denoiser(inpaint=True)
    again = build_denoiser("tinyflux", made.config_dict(), PATH)
    assert made.inpaint_channels == again.inpaint_channels == HOLE
    again.load_state_dict(made.state_dict())
    fresh = build(
        LatentSpec(12, 2),
        TextSpec(12, 7, 10),
        PATH,
        inpaint=True,
        num_double_layers=1,
        num_single_layers=1,
    )
    assert fresh.inpaint_channels == 12 + 4 and not fresh.net.inpaint_in.weight.any()


def test_masked_pictures_are_refused_or_required_as_the_network_reads_them():
    x, t, cond = given()
    hole = torch.zeros(2, HOLE, 8, 8)
    with pytest.raises(ConfigError, match="fills no holes"):
        denoiser()(x, t, told(cond, inpaint=hole))
    with pytest.raises(ConfigError, match="given none"):
        denoiser(inpaint=True)(x, t, cond)
    with pytest.raises(ConfigError, match="at once"):
        denoiser(inpaint=True)(x, t, told(cond, inpaint=hole, references=(x,)))


@torch.no_grad()
def test_references_tell_by_content_place_and_order():
    made = denoiser()
    x, t, cond = given(8, 12)
    first, second = torch.randn(2, 6, 4, 8), torch.randn(2, 6, 8, 8)
    alone = made(x, t, cond).sample
    both = made(x, t, told(cond, references=(first, second))).sample
    assert both.shape == alone.shape
    swapped = made(x, t, told(cond, references=(second, first))).sample
    moved = made(x, t, told(cond, references=(first.roll(2, -1), second))).sample
    for other in (alone, swapped, moved):
        assert not torch.allclose(both, other, atol=1e-5)
    # one sample's references are nothing to its neighbour
    mixed = made(
        x, t, told(cond, references=(torch.stack([first[0], second[1, :, :4]]), second))
    ).sample
    torch.testing.assert_close(mixed[0], both[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_attention_map_is_not_of_the_references():
    """The map is read over the image alone, and references weigh its mean, whatever their size."""
    made = denoiser()
    x, t, cond = given()
    seen = []
    made.net.double_blocks[0].attn.spatial_to_mod.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    made(x, t, cond)
    made(x, t, told(cond, references=(torch.randn(2, 6, 16, 16),)))
    alone, beside = seen
    torch.testing.assert_close(beside[:, :16], alone)
    torch.testing.assert_close(beside[:, 16:], alone.mean(-1, keepdim=True).expand(-1, 64))


def test_the_channels_of_a_hole():
    codec = PixelFolding(4)
    images, holes = torch.rand(1, 3, 8, 8) * 2 - 1, torch.zeros(1, 1, 8, 8)
    holes[..., 1, 6] = 1
    made = inpaint_input(codec, images, holes)
    assert made.shape == (1, 48 + 16, 2, 2)
    # row 1, column 2 of the cell (0, 1)
    assert made[0, 48:].nonzero().tolist() == [[1 * 4 + 2, 0, 1]]
    grey = images.clone()
    grey[..., 1, 6] = 0
    torch.testing.assert_close(made[:, :48], codec.encode(grey))
    assert LATENTS.channels + LATENTS.downsample**2 == HOLE
