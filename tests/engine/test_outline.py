"""A step outlined on the meta device: bytes as an accelerator has them, extrapolated over equal
blocks.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.engine import outline
from tinyflux_pl.engine.live_bytes import LiveBytes

WIDTH, TOKENS = 32, 64


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (
            self.qkv(F.layer_norm(x, (WIDTH,))).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        )
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self, depth, checkpointed=False):
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.checkpointed = checkpointed

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return x


def outlined(depth, checkpointed=False):
    with torch.device("meta"):
        return Net(depth, checkpointed)


def loss_of(net, device="meta"):
    return lambda samples: net(torch.ones(samples, TOKENS, WIDTH, device=device)).square().mean()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_deep_networks_are_extrapolated_to_what_all_blocks_take(checkpointed, monkeypatch):
    net = outlined(6, checkpointed)
    shortened = outline.step(net, loss_of(net), "bf16-mixed")
    assert len(net.blocks) == 6
    monkeypatch.setattr(outline, "_equal_blocks", lambda module: [])
    counted = outline.step(net, loss_of(net), "bf16-mixed")
    for samples in (2, 3, 32):
        assert shortened.at(samples) == pytest.approx(counted.at(samples), rel=0.02)


def test_checkpointing_keeps_less_and_more_samples_take_more():
    whole, spared = (
        outline.step(net, loss_of(net), "bf16-mixed") for net in (outlined(6), outlined(6, True))
    )
    assert 2 * spared.at(32) < whole.at(32) and whole.at(32) > 8 * whole.at(2)


def test_a_mixed_step_keeps_half_of_what_products_are_made_of():
    net = outlined(4)
    mixed, single = (
        outline.step(net, loss_of(net), precision).at(64) for precision in ("bf16-mixed", "32-true")
    )
    assert 0.5 < mixed / single < 0.9


def test_the_outline_is_what_a_step_on_the_cpu_has_alive():
    net, planned = Net(4), outlined(4)
    loss = loss_of(net, "cpu")
    loss(2).backward()
    with LiveBytes("cpu") as count:
        loss(8).backward()
    real = max(live for _, live in count.history)
    assert outline.step(planned, loss_of(planned), "32-true").at(8) == pytest.approx(real, rel=0.15)


def test_without_gradients_depth_does_not_matter():
    shallow, deep = (
        outline.forward(net, loss_of(net), "32-true") for net in (outlined(3), outlined(9))
    )
    assert deep.at(16) == pytest.approx(shallow.at(16), rel=0.05)
