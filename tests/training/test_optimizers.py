"""Optimizers: who decays, who is orthogonalised, and that two in one are still one."""

import functools

import pytest
import torch
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.unet import build_unet
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.training.optimizers import (
    MuonAdamW,
    adamw,
    build_optimizer,
    skip_step_if,
    split_by_role,
)

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)
# every optimizer of the allowlist that takes one loss a step; Muon alone takes matrices only
TORCH = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
)
KINDS = {
    "adamw": adamw,
    "muon": MuonAdamW,
    **{name: functools.partial(getattr(torch.optim, name), lr=0.01) for name in TORCH},
    "sgd": functools.partial(torch.optim.SGD, lr=0.01),
    "momentum": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, dampening=0.5),
    "fused": functools.partial(torch.optim.Adam, lr=0.01, fused=True, amsgrad=True),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.img_in = nn.Linear(4, 8)
        self.blocks = nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(8, 8)})])
        self.modulation = nn.Linear(8, 8)
        self.kernel = nn.Conv2d(2, 2, 3)
        self.final_linear = nn.Linear(8, 4)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)


def fill(net, seed):
    g = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=g)


def test_parameters_are_split_by_role():
    net = Net()
    hidden, edge, plain = split_by_role(net)
    assert [id(p) for p in hidden] == [id(net.blocks[0]["mlp"].weight)]
    assert {id(p) for p in edge} == {
        id(m.weight) for m in (net.img_in, net.kernel, net.final_linear, net.modulation)
    }
    assert all(p.ndim == 1 for p in plain) and len(plain) == 5


def test_muon_optimizes_kernels_attention_and_feed_forward_of_a_unet():
    spec = LatentSpec(channels=4, downsample=1), TextSpec(width=8, length=4, pooled=8)
    small = {"block_out_channels": (8, 16), "attention_head_dim": 2, "norm_num_groups": 2}
    net = build_unet(*spec, LinearPath(), "velocity", **small)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    hidden, edge, plain = ([names[id(p)] for p in role] for role in split_by_role(net))
    assert len(hidden) + len(edge) + len(plain) == len(names)
    assert "unet.down_blocks.0.resnets.0.conv1.weight" in hidden
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight" in hidden
    assert "unet.up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2.weight" in hidden
    readers = (
        "conv_in",
        "conv_out",
        "time_embedding",
        "class_embedding",
        "time_emb_proj",
        "conv_shortcut",
    )
    assert all(not any(reader in name for reader in readers) for name in hidden)
    assert all(any(reader in name for name in edge) for reader in readers)


def test_norms_and_biases_do_not_decay_and_frozen_weights_are_unchanged():
    for optimizer in (
        adamw(net := Net(), weight_decay=0.1),
        MuonAdamW(net := Net(), weight_decay=0.1),
    ):
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert all(
            decay[id(p)] == (0.0 if p.ndim < 2 else 0.1) for p in net.parameters() if id(p) in decay
        )
        owned = optimizer.param_groups
        assert not {id(p) for g in owned for p in g["params"]} & {
            id(p) for p in net.frozen.parameters()
        }


def test_a_network_without_blocks_is_refused_with_another_optimizer_as_cure():
    with pytest.raises(ConfigError, match="no matrices inside blocks") as error:
        build_optimizer(nn.Sequential(nn.Linear(4, 8), nn.Conv2d(2, 2, 3)), MuonAdamW)
    assert error.value.cure == "optimizer=adamw"


def test_a_schedule_sets_the_rate_of_muon_and_adamw():
    net = Net()
    optimizer = MuonAdamW(net)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = [p.detach().clone() for p in net.parameters()]
    fill(net, 0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_restored_optimizer_continues_bit_equal():
    torch.manual_seed(0)
    uninterrupted, broken = Net(), Net()
    broken.load_state_dict(uninterrupted.state_dict())
    first, second = MuonAdamW(uninterrupted), MuonAdamW(broken)
    for step in range(3):
        for net, optimizer in ((uninterrupted, first), (broken, second)):
            fill(net, step)
            optimizer.step()
    third = MuonAdamW(broken)
    third.load_state_dict(second.state_dict())
    for net, optimizer in ((uninterrupted, first), (broken, third)):
        fill(net, 9)
        optimizer.step()
    assert all(
        torch.equal(a, b)
        for a, b in zip(uninterrupted.parameters(), broken.parameters(), strict=True)
    )


def bits(net, optimizer):
    """Everything a step may change, as numbers to compare."""
    tensors = []

    def collect(value):
        if isinstance(value, torch.Tensor):
            tensors.append(value.detach().clone())
        elif isinstance(value, dict):
            for key in value:
                collect(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)
        elif isinstance(value, int | float):
            tensors.append(torch.tensor(float(value)))

    collect([list(net.parameters()), optimizer.state_dict()])
    return tensors


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e4])
def test_a_skipped_step_leaves_weights_and_state_bit_equal_for_the_next(kind, poison):
    torch.manual_seed(0)
    spared, attacked = Net(), Net()
    attacked.load_state_dict(spared.state_dict())
    nets = {net: build_optimizer(net, KINDS[kind]) for net in (spared, attacked)}
    for step in range(6):
        for net, optimizer in nets.items():
            if step in (0, 3, 4):  # the very first, and two in a row
                if net is spared:
                    continue
                fill(net, step)
                net.img_in.weight.grad[0, 0] = net.blocks[0]["mlp"].weight.grad[1, 1] = poison
                before = bits(net, optimizer)
                skip_step_if(optimizer, BAD)
                optimizer.step()
                if step:
                    assert same(before, bits(net, optimizer))
                else:  # state that a first step makes is made; the weights stay
                    assert all(
                        torch.equal(a, b)
                        for a, b in zip(spared.parameters(), net.parameters(), strict=True)
                    )
            else:
                fill(net, step)
                skip_step_if(optimizer, GOOD)
                optimizer.step()
    assert same(bits(spared, nets[spared]), bits(attacked, nets[attacked]))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_accepted_step_equals_one_without_guard(kind):
    torch.manual_seed(0)
    free, guarded = Net(), Net()
    guarded.load_state_dict(free.state_dict())
    for net in (free, guarded):
        optimizer = KINDS[kind](net)
        for step in range(3):
            fill(net, step)
            if net is guarded:
                skip_step_if(optimizer, GOOD)
            optimizer.step()
    assert all(
        torch.equal(a, b) for a, b in zip(free.parameters(), guarded.parameters(), strict=True)
    )


def test_the_skip_flag_is_not_in_the_state_dict():
    optimizer = MuonAdamW(Net())
    skip_step_if(optimizer, BAD)
    assert "found_inf" not in str(optimizer.state_dict())


def test_torch_optimizers_receive_only_trained_parameters():
    net = Net()
    optimizer = build_optimizer(net, functools.partial(torch.optim.SGD, lr=0.1))
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "factory",
    [
        functools.partial(adamw, lr=-1.0),
        functools.partial(MuonAdamW, muon_lr=-1.0),
        functools.partial(MuonAdamW, momentum=1.5),
        functools.partial(MuonAdamW, weight_decay=-1.0),
        functools.partial(torch.optim.AdamW, lr=-1.0),
    ],
    ids=["adamw", "muon", "momentum", "decay", "torch's"],
)
def test_an_invalid_learning_rate_is_refused(factory):
    with pytest.raises(ConfigError, match="nvalid") as caught:
        build_optimizer(Net(), factory)
    assert caught.value.where == "optimizer" and caught.value.cure
