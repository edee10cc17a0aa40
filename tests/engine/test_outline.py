"""A step on the meta device: bytes as on an accelerator, extrapolated over equal blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.engine import outline
from tinyflux_pl.engine.live_bytes import LiveBytes

WIDTH, TOKENS = 32, 64
BYTES = 2**22  # many times the activations of a block


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
def test_memory_of_deep_networks_is_extrapolated_to_all_blocks(checkpointed, monkeypatch):
    net = outlined(6, checkpointed)
    shortened = outline.step(net, loss_of(net), "bf16-mixed")
    assert len(net.blocks) == 6
    monkeypatch.setattr(outline, "_equal_blocks", lambda module: [])
    counted = outline.step(net, loss_of(net), "bf16-mixed")
    for samples in (2, 3, 32):
        assert shortened.at(samples) == pytest.approx(counted.at(samples), rel=0.02)


def test_predicted_memory_falls_with_checkpointing_and_grows_with_batch_size():
    stored, spared = (
        outline.step(net, loss_of(net), "bf16-mixed") for net in (outlined(6), outlined(6, True))
    )
    assert 2 * spared.at(32) < stored.at(32) and stored.at(32) > 8 * stored.at(2)


def test_a_bf16_mixed_step_needs_less_memory_than_fp32():
    net = outlined(4)
    mixed, single = (
        outline.step(net, loss_of(net), precision).at(64) for precision in ("bf16-mixed", "32-true")
    )
    assert 0.5 < mixed / single < 0.9


def test_predicted_memory_equals_live_bytes_of_a_cpu_step():
    net, planned = Net(4), outlined(4)
    loss = loss_of(net, "cpu")
    loss(2).backward()
    with LiveBytes("cpu") as count:
        loss(8).backward()
    real = max(live for _, live in count.history)
    assert outline.step(planned, loss_of(planned), "32-true").at(8) == pytest.approx(real, rel=0.15)


def test_without_gradients_memory_does_not_depend_on_depth():
    shallow, deep = (
        outline.forward(net, loss_of(net), "32-true") for net in (outlined(3), outlined(9))
    )
    assert deep.at(16) == pytest.approx(shallow.at(16), rel=0.05)


def test_memory_kept_by_the_first_pass_is_counted_once_and_not_extrapolated():
    def keeping(net):
        loss, kept = loss_of(net), []

        def work(samples):
            if not kept:
                kept.append(torch.ones(BYTES // 4, device="meta"))
            return loss(samples)

        return work

    net = outlined(6)
    plain = outline.step(net, loss_of(net), "32-true")
    once = outline.step(net, keeping(net), "32-true")
    assert [once.at(n) - plain.at(n) for n in (2, 3, 32)] == [BYTES] * 3
    plain = outline.forward(net, loss_of(net), "32-true")
    once = outline.forward(net, keeping(net), "32-true")
    assert [once.at(n) - plain.at(n) for n in (2, 3, 32)] == [BYTES] * 3
