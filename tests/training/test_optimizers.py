"""Optimizers: who decays, who is orthogonalised, and that two in one are still one."""

import torch
from torch import nn

from tinyflux_pl.training.optimizers import MuonAdamW, adamw, split_by_role


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


def test_roles():
    net = Net()
    hidden, edge, plain = split_by_role(net)
    assert [id(p) for p in hidden] == [id(net.blocks[0]["mlp"].weight)]
    assert {id(p) for p in edge} == {id(m.weight) for m in (net.img_in, net.kernel, net.final_linear, net.modulation)}
    assert all(p.ndim == 1 for p in plain) and len(plain) == 5


def test_norms_and_biases_do_not_decay_and_frozen_weights_are_left_alone():
    for optimizer in (adamw(net := Net(), weight_decay=0.1), MuonAdamW(net := Net(), weight_decay=0.1)):
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert all(decay[id(p)] == (0.0 if p.ndim < 2 else 0.1) for p in net.parameters() if id(p) in decay)
        owned = optimizer.param_groups
        assert not {id(p) for g in owned for p in g["params"]} & {id(p) for p in net.frozen.parameters()}


def test_a_schedule_reaches_both_halves():
    net = Net()
    optimizer = MuonAdamW(net)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = [p.detach().clone() for p in net.parameters()]
    fill(net, 0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_restoring_continues_with_the_same_bits():
    torch.manual_seed(0)
    whole, broken = Net(), Net()
    broken.load_state_dict(whole.state_dict())
    first, second = MuonAdamW(whole), MuonAdamW(broken)
    for step in range(3):
        for net, optimizer in ((whole, first), (broken, second)):
            fill(net, step)
            optimizer.step()
    third = MuonAdamW(broken)
    third.load_state_dict(second.state_dict())
    for net, optimizer in ((whole, first), (broken, third)):
        fill(net, 9)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), broken.parameters(), strict=True))
