"""Replayed blocks give the memory history of counted ones, to the byte, or are counted again."""

import pytest
import torch
from torch import nn

from tests import releases_flux1, releases_stability
from tests.denoisers import test_flux_core, test_fluxflow, test_tinyflux, test_unet
from tests.denoisers.test_conformance import FLUX2, FLUX3, STRAIGHT, released
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import flux1, flux2, flux3, sd3, sdxl
from tinyflux_pl.diffusion.paths import VPPath
from tinyflux_pl.engine import block_replay
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


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}, {"scale": None}])
@pytest.mark.parametrize("rows", [1, 2])
def test_one_of_equal_blocks_computes(rows, options):
    (plain, replayed), computed = counted(*of(Block, (rows, 6, WIDTH), **options))
    assert replayed == plain and computed == [DEPTH, 1]


def test_a_tensor_among_the_keywords_counts_as_any_other():
    network, _ = of(Block)
    x, scales = (torch.empty(2, 6, WIDTH, device="meta") for _ in range(2))
    (plain, replayed), computed = counted(network, lambda: network(x, scale=scales))
    assert replayed == plain and computed == [DEPTH, 1]


@pytest.mark.parametrize("rows", [1, 2])
def test_results_in_place_are_the_argument_again(rows):
    (plain, replayed), computed = counted(*of(Mutating, (rows, 6, WIDTH)))
    assert replayed == plain and computed == [DEPTH, 1]
    network, _ = of(Mutating)
    x = torch.empty(2, 6, WIDTH, device="meta")
    same = []
    history(lambda: same.append(network(x)), network)
    assert same[0] is x


def test_a_view_of_the_argument_is_one_again_and_keeps_its_memory():
    network, work = of(Viewed, (2, 12, WIDTH))
    (plain, replayed), computed = counted(network, work)
    assert replayed == plain and computed == [DEPTH, DEPTH]  # each is shorter than the last
    x = torch.empty(2, 12, WIDTH, device="meta")
    block = network.blocks

    def twice():
        one, two = block[0](x), block[1](x)
        return one.untyped_storage()._cdata == two.untyped_storage()._cdata == x.data_ptr

    (plain, replayed), computed = counted(network, twice)
    assert replayed == plain and computed == [2, 1]


def test_results_that_share_memory_share_it_again():
    network, _ = of(Halves)

    def work():
        x, y = (torch.empty(2, n, WIDTH, device="meta") for n in (6, 4))
        first = None
        for block in network.blocks:
            x, z, number, same = block(x, y)
            assert number == 3 and same is y and z.shape == y.shape and z is not y
            assert x.untyped_storage()._cdata == z.untyped_storage()._cdata
            first = z if first is None else first  # keeps both halves of the first alive
        return x

    (plain, replayed), computed = counted(network, work)
    assert replayed == plain
    assert computed == [DEPTH, 2]  # the first x is contiguous, the others are views of a half


@pytest.mark.parametrize("kind", [Keeping, Appending, Freeing])
def test_blocks_that_keep_or_free_what_is_no_result_compute(kind):
    network, _ = of(kind)

    def work():
        Freeing.waiting = [torch.empty(9, device="meta") for _ in range(DEPTH)]
        options = {"states": []} if kind is Appending else {}
        return network(torch.empty(2, 6, WIDTH, device="meta"), **options)

    (plain, replayed), computed = counted(network, work)
    assert replayed == plain and computed == [DEPTH, DEPTH]


def test_a_table_that_the_first_call_alone_keeps_is_counted_once():
    network, work = of(Once)
    plain = history(work)
    Once.table, Block.computed = None, 0
    assert history(work, network) == plain and Block.computed == 2
    Once.table = None


def test_an_argument_that_may_hold_anything_is_not_replayed():
    network, _ = of(Block)
    x = torch.empty(2, 6, WIDTH, device="meta")

    options = {"change": torch.sin}
    (plain, replayed), computed = counted(network, lambda: network(x, **options))
    assert replayed == plain and computed == [DEPTH, DEPTH]


def test_a_block_with_another_setting_or_width_computes():
    network, work = of(Flagged)
    for number, block in enumerate(network.blocks):
        block.twice = number in (1, 2)
    (plain, replayed), computed = counted(network, work)
    assert replayed == plain and computed == [DEPTH, 2]
    network, work = of(Block)
    network.blocks[3] = Block(hidden=64).to("meta")
    (plain, replayed), computed = counted(network, work)
    assert replayed == plain and computed == [DEPTH, 2]
    network.blocks[3].activation = lambda x: x  # other code
    network.blocks[1].activation = lambda x: x
    assert counted(network, work)[1] == [DEPTH, 3]


def hooked(block, kept, factor):
    """A hook on a layer of the block, which keeps its output or not."""

    def hook(module, inputs, output):
        kept.extend([output] if factor else [])

    block.into.register_forward_hook(hook)


@pytest.mark.parametrize("keeps", [False, True])
def test_hooks_within_blocks_are_equal_if_they_hold_equal_values(keeps):
    network, work = of(Block)
    kept = []
    for block in network.blocks:
        hooked(block, kept, factor=keeps)

    def emptied():
        kept.clear()
        work()

    (plain, replayed), computed = counted(network, emptied)
    assert replayed == plain and computed == [DEPTH, DEPTH if keeps else 1]


def test_networks_compute_as_before_after_the_count():
    network, work = of(Block)
    history(work, network)
    assert not any("forward" in vars(block) for block in network.blocks)
    Block.computed = 0
    network.to_empty(device="cpu")(torch.zeros(1, 2, WIDTH))
    assert Block.computed == DEPTH


FAMILIES = {
    "flux1": released(
        flux1,
        LatentSpec(16, 8),
        TextSpec(16, 6, 12),
        STRAIGHT,
        releases_flux1.STRUCTURE
        | dict(num_layers=4, num_single_layers=5, joint_attention_dim=16, pooled_projection_dim=12),
    ),
    "flux2": released(
        flux2,
        LatentSpec(16, 16),
        TextSpec(24, 6, 0),
        STRAIGHT,
        FLUX2 | dict(num_layers=3, num_single_layers=4),
    ),
    "flux3": released(
        flux3,
        LatentSpec(16, 16),
        TextSpec(24, 6, 0),
        STRAIGHT,
        FLUX3 | dict(num_layers=4, num_single_layers=4),
    ),
    "sd3": released(
        sd3,
        LatentSpec(16, 8),
        TextSpec(32, 9, 20),
        STRAIGHT,
        releases_stability.SD35 | dict(num_layers=6, dual_attention_layers=(0, 1, 2)),
    ),
    "sdxl": released(
        sdxl,
        LatentSpec(4, 8),
        TextSpec(24, 77, 10),
        VPPath(),
        releases_stability.SDXL | dict(transformer_layers_per_block=(1, 2, 4)),
    ),
}
FAMILIES |= {
    "tinyflux": lambda: test_tinyflux.denoiser(num_double_layers=3, num_single_layers=4),
    "flux_core": lambda: test_flux_core.denoiser(depth=3, depth_single_blocks=4),
    "fluxflow": lambda: test_fluxflow.small(layers=4),
    "unet": lambda: test_unet.small(layers_per_block=3),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_counted_to_the_byte(name, monkeypatch):
    network = FAMILIES[name]().eval().to("meta")
    spec = network.text_spec
    x, t = (
        torch.empty(2, network.latent_spec.channels, 8, 8, device="meta"),
        torch.ones(2, device="meta"),
    )
    text = TextEmbeddings(
        x.new_empty(2, spec.length, spec.width),
        x.new_empty(2, spec.length, dtype=torch.bool),
        x.new_empty(2, spec.pooled),
    )
    cond = Conditioning(text)
    replays = []
    replay = block_replay._Record.replay
    monkeypatch.setattr(block_replay._Record, "replay", lambda *a: replays.append(1) or replay(*a))
    (plain, replayed), _ = counted(network, lambda: network(x, t, cond))
    assert replayed == plain and (len(replays) > 2)
