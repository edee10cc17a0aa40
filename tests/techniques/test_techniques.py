"""Each technique computes its paper's formula, and a step without its share is the plain one."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers import tinyflux
from tinyflux_pl.diffusion.losses import masked_mean, sample_mean
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.techniques.contrastive import Contrastive
from tinyflux_pl.techniques.layer_sync import LayerSync
from tinyflux_pl.techniques.technique import Regression, StepInputs
from tinyflux_pl.techniques.token_routing import TokenRouting

CPU = torch.device("cpu")


def deep(double=3, single=3):
    """TinyFlux with Sol's prior, so that every argument of a block has tokens."""
    torch.manual_seed(0)
    network = tinyflux.build(
        LatentSpec(4, 2),
        TextSpec(12, 5, 8),
        LinearPath(),
        hidden_size=32,
        num_attention_heads=2,
        attention_head_dim=16,
        axes_dims_rope=[4, 6, 6],
        num_double_layers=double,
        num_single_layers=single,
        patch_size=2,
        sol_hidden_dim=8,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def inputs_of(network, x, step=0, ids=None):
    tokens = x.shape[-2] * x.shape[-1] // network.patch_size**2
    return StepInputs(ids or list(range(len(x))), step, tokens, CPU)


def passed(technique, network, x, t, cond, **more):
    with contextmanager(technique.applied)(network, inputs_of(network, x, **more)):
        return network(x, t, cond).sample


def test_contrastive_subtracts_the_error_to_the_next_sample_s_target():
    output, target = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    loss = Contrastive(0.1).loss(Regression(output, target, sample_mean))
    expected = [-0.1 * (output[i] - target[(i + 1) % 3]).square().mean() for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(expected))


def test_contrastive_weights_the_foreground_as_the_loss_does():
    """Errors in the background count a quarter of those in the foreground."""
    output, target = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    masks = (torch.arange(16).reshape(1, 4, 4) < 6).float().expand(2, 4, 4)
    loss = Contrastive(0.1).loss(
        Regression(output, target, lambda error: masked_mean(error, masks, 2.0, 0.5))
    )
    error = (output - target.flip(0)).square()
    torch.testing.assert_close(loss, -0.1 * masked_mean(error, masks, 2.0, 0.5))
    assert not torch.allclose(loss, -0.1 * error.mean((1, 2, 3)))


def test_contrastive_adds_nothing_to_a_batch_of_one():
    alone = torch.randn(1, 2, 4, 4)
    assert Contrastive().loss(Regression(alone, alone, sample_mean)) is None


def test_layer_sync_teaches_the_early_blocks_from_the_late_ones():
    network = deep()
    x, t, cond = example(network)
    technique = LayerSync(weight=0.5, early=0.3, late=0.7)
    assert technique.layers(6) == (1, 3)
    kept = {}
    blocks = network.block_stack()
    for number in (1, 3):
        blocks[number].module.register_forward_hook(
            lambda _, __, out, n=number: kept.update({n: blocks[n].image_of(out)})
        )
    output = passed(technique, network, x, t, cond)
    loss = technique.loss(Regression(output, output.detach(), sample_mean))
    count = kept[1].shape[1]
    similarity = F.cosine_similarity(kept[1], kept[3][:, -count:].detach(), dim=-1)
    torch.testing.assert_close(loss, 0.5 * (1 - similarity).mean(1))
    loss.sum().backward()
    learns = [
        any(p.grad is not None and p.grad.any() for p in block.module.parameters())
        for block in blocks
    ]
    assert learns == [True, True, False, False, False, False]


@pytest.mark.parametrize("name", ["tinyflux", "flux_core", "deep"])
def test_routing_no_token_is_the_plain_pass(name):
    network = deep() if name == "deep" else SMALL[name]()
    x, t, cond = example(network)
    routed = passed(TokenRouting(share=0, first=0, last=1), network, x, t, cond)
    torch.testing.assert_close(routed, network(x, t, cond).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("span", [(0, 0.5), (0.2, 0.8), (0.6, 1)])
def test_routed_tokens_skip_the_blocks_and_come_back_at_their_places(span):
    network = deep()
    x, t, cond = example(network)
    technique = TokenRouting(0.75, *span)
    blocks, lengths = network.block_stack(), []
    for block in blocks:
        block.module.register_forward_hook(
            lambda _, __, out, block=block: lengths.append(block.image_of(out).shape[1])
        )
    passed(technique, network, x, t, cond)
    routed = technique.routed(blocks)
    start, end = (blocks.index(block) for block in (routed[0], routed[-1]))
    text = cond.text.tokens.shape[1]
    full = [16 + text * (len(block.streams) == 1) for block in blocks]
    # the last block of the route gives all tokens back
    expected = [n - 12 * (start <= i < end) for i, n in enumerate(full)]
    assert lengths == expected


def test_a_token_that_skips_does_not_change_those_that_stay():
    network = deep(double=2, single=0)
    x, t, cond = example(network, rows=1)
    technique = TokenRouting(0.5, 0, 1)
    first = passed(technique, network, x, t, cond)
    order = rng.normal((16,), 0, "token_routing", [0])[0].argsort()
    kept = order[:8].sort().values
    skipped = next(i for i in range(16) if i not in kept.tolist())
    row, column = divmod(skipped, 4)
    changed = x.clone()
    changed[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
    moved = (passed(technique, network, changed, t, cond) - first).abs().amax((0, 1))
    cells = moved.unflatten(0, (4, 2)).unflatten(-1, (4, 2)).amax((1, 3)).flatten()
    assert cells[skipped] > 1e-4
    assert cells[kept].max() == 0


def test_a_sample_s_route_is_its_own_in_every_batch_and_new_in_every_step():
    network = deep()
    x, t, cond = example(network)
    technique = TokenRouting()
    batched = passed(technique, network, x, t, cond, ids=[7, 8, 9], step=5)
    rows = slice(1, 2)
    part = cond.rows(lambda tensor: tensor[rows])
    alone = passed(technique, network, x[rows], t[rows], part, ids=[8], step=5)
    torch.testing.assert_close(batched[rows], alone, atol=2e-5, rtol=1e-4)
    later = passed(technique, network, x, t, cond, ids=[7, 8, 9], step=6)
    assert (later - batched).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["unet", "sdxl", "fluxflow"])
def test_routing_is_refused_where_blocks_need_all_tokens(name):
    with pytest.raises(ConfigError, match="need all of their image tokens"):
        TokenRouting().check(SMALL[name]())


def test_layer_sync_is_refused_without_a_stack_of_blocks():
    with pytest.raises(ConfigError, match="fewer than two"):
        LayerSync().check(SMALL["unet"]())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Contrastive(1.0),
        lambda: Contrastive(-0.1),
        lambda: LayerSync(early=0.7, late=0.3),
        lambda: LayerSync(weight=-1),
        lambda: TokenRouting(share=1.0),
        lambda: TokenRouting(first=0.8, last=0.2),
    ],
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(ConfigError, match="technique"):
        build()
