"""Networks of equal blocks that count the calls which compute."""

import torch
from torch import nn

from tinyflux_pl.engine.activations import history

WIDTH, DEPTH = 8, 5


class Block(nn.Module):
    """Counts the calls that compute."""

    computed = 0

    def __init__(self, number=0, hidden=32):
        super().__init__()
        self.layer_idx = number
        self.into, self.out = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)

    def forward(self, *inputs, **options):
        Block.computed += 1
        return self.answer(*inputs, **options)

    def answer(self, x, scale=None, change=None):
        x = (change or nn.Identity())(x + self.out(nn.functional.gelu(self.into(x))))
        return x if scale is None else x * scale


class Halves(Block):
    """Returns two views of one tensor, a number, and its argument."""

    def answer(self, x, y):
        both = torch.cat([x + self.out(self.into(x)), y], 1)
        return both[:, : x.shape[1]], both[:, x.shape[1] :], 3, y


class Mutating(Block):
    """Returns the argument, changed, or a view of it."""

    def answer(self, x):
        x.add_(self.out(self.into(x)))
        return x if x.shape[0] > 1 else x.flip(1)[:, ::2].repeat(1, 2, 1).mul_(2) + x


class Viewed(Block):
    """Returns a view of its argument."""

    def answer(self, x):
        self.into(x)
        return x.transpose(0, 1).transpose(0, 1)[:, 1:]


class Keeping(Block):
    """Keeps what it computed."""

    def answer(self, x):
        self.kept = self.into(x)
        return x + self.out(self.kept)


class Once(Block):
    """Keeps a table that the first call makes and all read."""

    table = None

    def answer(self, x):
        if Once.table is None:
            Once.table = x.new_empty(100, WIDTH).cos()
        return x + self.out(self.into(x)) + Once.table[: x.shape[1]]


class Appending(Block):
    """Adds what it computed to a list that it is given."""

    def answer(self, x, states):
        x = super().answer(x)
        states.append(x)
        return x


class Freeing(Block):
    """Frees what others made."""

    waiting = ()

    def answer(self, x):
        Freeing.waiting.pop()
        return super().answer(x)


class Flagged(Block):
    """Takes twice as much where a setting says so."""

    def answer(self, x):
        x = super().answer(x)
        return x + x.sin().cos() if self.twice else x


class Stack(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.blocks = nn.ModuleList(kind(number, **options) for number in range(DEPTH))

    def forward(self, x, **options):
        for block in self.blocks:
            x = block(x, **options)
        return x


def counted(network, work):
    """Histories with and without replay, and the blocks that computed in each."""
    histories, computed = [], []
    history(work)  # what it keeps for later calls
    for networks in ([], [network]):
        Block.computed = 0
        histories.append(history(work, *networks))
        computed.append(Block.computed)
    return histories, computed


def of(kind, inputs=(2, 6, WIDTH), **options):
    with torch.device("meta"):
        network = Stack(kind).eval()
    return network, lambda: network(torch.empty(inputs, device="meta"), **options)
