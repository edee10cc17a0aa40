"""FluxFlow's default networks have none of the original's defects."""

import pytest
import torch

from tinyflux_pl.nets.discriminator import PatchDiscriminator
from tinyflux_pl.nets.fluxflow.compressor import FluxCompressor
from tinyflux_pl.nets.fluxflow.expander import FluxExpander
from tinyflux_pl.nets.fluxflow.processor import FluxFlowProcessor
from tinyflux_pl.nets.fluxflow.stages import DownStage, UpStage


@pytest.fixture
def processor():
    torch.manual_seed(0)
    network = FluxFlowProcessor(
        channels=6, text_width=8, pooled_width=8, width=16, heads=2, layers=2
    )
    torch.nn.init.normal_(network.x_out.weight)
    return network


def inputs(batch=2, words=5, side=3):
    torch.manual_seed(1)
    latents, text = torch.randn(batch, 6, side, side), torch.randn(batch, words, 8)
    mask = torch.ones(batch, words, dtype=torch.bool)
    return [latents, torch.linspace(0.1, 0.9, batch), text, mask, torch.randn(batch, 8)]


def test_every_parameter_of_the_flow_network_has_a_gradient(processor):
    processor(*inputs()).square().sum().backward()
    without = [k for k, p in processor.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_nearby_times_give_different_predictions(processor):
    arguments = inputs()
    first = processor(*arguments)
    arguments[1] = arguments[1] + 1e-3
    assert (processor(*arguments) - first).abs().max() > 1e-6


def test_text_padding_is_ignored_and_text_tokens_are_read(processor):
    arguments = inputs()
    arguments[3][:, 3:] = False
    first = processor(*arguments)
    arguments[2][:, 3:] = 100.0
    assert torch.equal(processor(*arguments), first)
    arguments[2][:, 1] += 1.0
    assert not torch.allclose(processor(*arguments), first)


def test_the_processor_supports_bf16_and_checkpointing(processor):
    arguments = inputs()
    expected = processor(*arguments)
    processor.checkpointing = True
    assert torch.allclose(processor(*arguments), expected, atol=1e-6)
    half = [v.bfloat16() if v.is_floating_point() else v for v in arguments]
    assert processor.bfloat16()(*half).dtype == torch.bfloat16


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return (
        FluxCompressor(latent_channels=4, widths=(6, 8), layers=1, heads=2),
        FluxExpander(latent_channels=4, widths=(8, 6), spade_hidden=8, rgb_width=8),
    )


def test_the_decoder_reads_only_the_bounded_latents(pair):
    encoder, decoder = pair
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    mean, log_variance = encoder(images)
    assert mean.shape == log_variance.shape == (2, 4, 2, 3)
    assert mean.abs().max() <= 2
    assert log_variance.min() >= -7
    assert log_variance.max() <= 2
    picture = decoder(mean)
    assert picture.shape == images.shape
    assert picture.abs().max() <= 1


def test_every_parameter_of_the_autoencoder_has_a_gradient(pair):
    encoder, decoder = pair
    mean, log_variance = encoder(torch.rand(2, 3, 8, 8))
    (decoder(mean).square().sum() + log_variance.sum()).backward()
    parameters = [*encoder.named_parameters(), *decoder.named_parameters()]
    assert not [k for k, p in parameters if p.grad is None or not p.grad.any()]


def test_the_autoencoder_supports_bf16_and_checkpointing(pair):
    encoder, decoder = pair
    images = torch.rand(2, 3, 8, 8)
    expected = decoder(encoder(images)[0])
    encoder.checkpointing = decoder.checkpointing = True
    assert torch.allclose(decoder(encoder(images)[0]), expected, atol=1e-6)
    mean, _ = encoder.bfloat16()(images.bfloat16())
    assert decoder.bfloat16()(mean).dtype == torch.bfloat16


def test_a_new_discriminator_gives_bounded_logits():
    torch.manual_seed(0)
    network = PatchDiscriminator(base_ch=4, depth=2, ctx_dim=3).eval()
    logits = network(torch.rand(2, 3, 16, 16), torch.rand(2, 3))
    assert logits.shape == (2, 1, 4, 4)
    assert logits.abs().max() < 10
    with pytest.raises(ValueError, match="context"):
        network(torch.rand(2, 3, 16, 16))


def test_no_norm_stands_between_the_last_stage_and_the_picture(pair):
    _, decoder = pair
    assert not [m for m in decoder.to_rgb.modules() if isinstance(m, torch.nn.GroupNorm)]


def test_colours_reach_the_latents_and_come_back_without_any_activation(pair):
    """With the branches silent a stage is linear, and lossless if it has enough channels."""
    torch.manual_seed(0)
    down, up = DownStage(3, 12), UpStage(12, 3, context=4, spade_hidden=4)
    for layer in (down.down, down.refine, up.up, up.refine):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    images, context = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)
    features = down(images)
    assert torch.allclose(features.square().sum(), 0.25 * images.square().sum(), rtol=1e-4)
    restored = up(features, context)
    assert torch.allclose(restored.square().sum(), features.square().sum(), rtol=1e-4)
