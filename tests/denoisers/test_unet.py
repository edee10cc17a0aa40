import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.unet import UNetDenoiser, build_unet
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.text.hashed_words import HashedWords

LATENTS, TEXT = LatentSpec(4, 2), TextSpec(16, 6, 16)
SIZE = {"block_out_channels": (8, 16), "attention_head_dim": 2, "norm_num_groups": 4}


def small(attention_levels=(True, True), **changes):
    torch.manual_seed(0)
    path = LinearPath(noise_at=1)
    return build_unet(
        LATENTS, TEXT, path, "velocity", attention_levels=attention_levels, **{**SIZE, **changes}
    )


@pytest.fixture
def cond():
    return Conditioning(HashedWords(16, 6).encode(["a red circle", "blue"]))


@pytest.fixture
def x():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_unet_meets_the_protocol_and_keeps_the_shape(x, cond):
    net = small()
    assert isinstance(net, Denoiser) and net.ports == ()
    assert net(x, torch.tensor([0.1, 0.9]), cond).sample.shape == x.shape


def test_a_prediction_depends_on_time_text_and_pooled_text(x, cond):
    net, t = small().eval(), torch.tensor([0.5, 0.5])
    before = net(x, t, cond).sample
    assert not torch.allclose(before, net(x, t + 0.2, cond).sample)
    other = HashedWords(16, 6).encode(["a green circle", "blue"])
    after = net(x, t, Conditioning(other)).sample
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    torch.testing.assert_close(before[1], after[1])
    mixed = Conditioning(type(other)(cond.text.tokens, cond.text.mask, other.pooled))
    assert not torch.allclose(before[0], net(x, t, mixed).sample[0], atol=1e-6)


def test_padding_has_no_influence_unless_attended_to(x, cond):
    t = torch.tensor([0.5, 0.5])
    noisy = cond.text.tokens.clone()
    noisy[~cond.text.mask] = 5.0
    changed = Conditioning(type(cond.text)(noisy, cond.text.mask, cond.text.pooled))
    net = small().eval()
    torch.testing.assert_close(net(x, t, cond).sample, net(x, t, changed).sample)
    net.masks_text = False
    assert not torch.allclose(net(x, t, cond).sample, net(x, t, changed).sample)


def test_attention_equals_that_of_diffusers(x, cond):
    net, t = small().eval(), torch.tensor([0.2, 0.7])
    actual = net(x, t, cond).sample
    net.unet.set_attn_processor(AttnProcessor2_0())
    torch.testing.assert_close(actual, net(x, t, cond).sample, atol=1e-5, rtol=1e-5)


def test_bf16_autocast_stays_close_and_trains(x, cond):
    net, t = small(), torch.tensor([0.2, 0.7])
    exact = net(x, t, cond).sample
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x, t, cond).sample
    assert (output.float() - exact).abs().max() < 0.05 * exact.abs().max() + 0.02
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_unet_receives_the_timestep_index_as_time(x, cond):
    heard = []
    net = UNetDenoiser(small().unet_config, VPPath(), "v", LATENTS, TEXT, time_scale=999.0)
    net.unet.time_proj.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    net(x, torch.tensor([0.0, 1.0]), cond)
    assert heard[0].tolist() == [0.0, 999.0] and heard[0].dtype == torch.float32


def test_attention_is_built_only_at_the_chosen_levels():
    def levels(net):
        names = [n for n in net.unet.attn_processors if n.endswith("attn1.processor")]
        return {
            name.split(".")[0] + name.split(".")[1] * (not name.startswith("mid")) for name in names
        }

    assert levels(small((False, True))) == {"down_blocks1", "mid_block", "up_blocks0"}
    assert levels(small((True, True))) == {
        "down_blocks0",
        "down_blocks1",
        "mid_block",
        "up_blocks0",
        "up_blocks1",
    }
    with pytest.raises(ConfigError, match="attention_levels"):
        small((True,))


def test_the_unet_is_rebuilt_from_its_config(x, cond):
    net, t = small().eval(), torch.tensor([0.2, 0.7])
    again = UNetDenoiser.from_config(net.config_dict(), net.path)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(
        net(x, t, cond).sample, again.eval()(x, t, cond).sample, rtol=0, atol=0
    )
    assert again.config_dict() == net.config_dict()


def test_incompatible_parts_are_refused_at_construction():
    config = small().unet_config
    with pytest.raises(ConfigError, match="channels"):
        UNetDenoiser(config, LinearPath(1), "velocity", LatentSpec(12, 2), TEXT)
    with pytest.raises(ConfigError, match="text width"):
        UNetDenoiser(config, LinearPath(1), "velocity", LATENTS, TextSpec(32, 6, 16))
    with pytest.raises(ConfigError, match="pooled width"):
        UNetDenoiser(config, LinearPath(1), "velocity", LATENTS, TextSpec(16, 6, 32))
    with pytest.raises(ConfigError, match="prediction"):
        UNetDenoiser(config, LinearPath(1), "noise", LATENTS, TEXT)


def test_blocks_with_unsupported_attention_are_refused():
    config = {
        **small().unet_config,
        "down_block_types": ["AttnDownBlock2D", "CrossAttnDownBlock2D"],
    }
    with pytest.raises(ConfigError, match="down_blocks"):
        UNetDenoiser(config, LinearPath(1), "velocity", LATENTS, TEXT)


def test_refined_tokens_know_their_neighbours_and_no_padding(x, cond):
    t = torch.tensor([0.5, 0.5])
    net, plain = small(text_layers=1).eval(), small().eval()
    plain.unet.load_state_dict(net.unet.state_dict())
    assert not torch.allclose(net(x, t, cond).sample, plain(x, t, cond).sample, atol=1e-4)
    tokens, mask = cond.text.tokens, cond.text.mask
    other = tokens.clone()
    other[0, 0] = tokens[0, 2]
    difference = (net.text_refiner(other, mask) - net.text_refiner(tokens, mask)).abs()
    assert difference[0, 1].max() > 1e-3
    assert difference[1].max() == 0
    other = tokens.clone()
    generator = torch.Generator().manual_seed(1)
    other[~mask] = torch.randn(int((~mask).sum()), 16, generator=generator)
    changed = Conditioning(type(cond.text)(other, mask, cond.text.pooled))
    torch.testing.assert_close(net(x, t, cond).sample, net(x, t, changed).sample)


def test_text_layers_are_rebuilt_from_the_config(x, cond):
    net = small(text_layers=2)
    rebuilt = UNetDenoiser.from_config(net.config_dict(), net.path)
    rebuilt.load_state_dict(net.state_dict())
    assert len(rebuilt.text_refiner.layers) == 2
    assert "text_layers" not in small().config_dict()


def test_text_layers_of_a_width_without_four_heads_are_refused():
    with pytest.raises(ConfigError, match="width 18"):
        build_unet(LATENTS, TextSpec(18, 6, 18), LinearPath(1), "velocity", text_layers=1, **SIZE)
