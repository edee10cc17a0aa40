"""Replayed blocks give the memory history of counted ones, to the byte, or are counted again."""

import pytest
import torch

from tests.engine.repeated_blocks import (
    DEPTH,
    WIDTH,
    Appending,
    Block,
    Flagged,
    Freeing,
    Halves,
    Keeping,
    Mutating,
    Once,
    Viewed,
    counted,
    of,
)
from tinyflux_pl.engine.activations import history


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
