"""Blocks in turn: equal values, the planned bytes and no more, nothing left behind."""

import gc
import weakref

import pytest
import torch
from torch import nn

from tests import gguf_files
from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.denoisers.gguf_linear import kept_layers
from tinyflux_pl.engine.activations import activations
from tinyflux_pl.engine.block_offload import BlockOffload
from tinyflux_pl.engine.block_sizes import BlockSizes, blocks_of, in_turn, sizes_of
from tinyflux_pl.engine.live_bytes import LiveBytes
from tinyflux_pl.engine.packing import pack

CPU = torch.device("cpu")


class Stack(nn.Module):
    """Eight blocks of two sizes between two layers."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(16, 64)
        wide = [nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 64)) for _ in range(3)]
        self.blocks = nn.ModuleList([*wide, *(nn.Linear(64, 64) for _ in range(5))])
        self.leave = nn.Linear(64, 8)

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)


def counted_peak(network, blocks, count, work):
    """The most bytes alive on the counted device, and the result."""
    offload = BlockOffload(network, blocks, CPU, count)
    with torch.inference_mode(), LiveBytes() as counter:
        offload.load()
        result = work()
        offload.unload()
    return max(live for _, live in counter.history), result


@pytest.mark.parametrize("count", range(0, 8))
def test_live_bytes_are_the_planned_ones(count):
    torch.manual_seed(0)
    network, x = Stack(), torch.randn(2, 16)
    with torch.inference_mode():
        expected = network(x)
    sizes, outline = sizes_of(network, network.blocks), Stack().to("meta")
    planned = sizes.with_in_turn(count) + activations(lambda: outline(x.to("meta")))
    peak, output = counted_peak(network, network.blocks, count, lambda: network(x))
    assert torch.equal(output, expected)
    assert peak <= planned and (count in (1, 2) or peak > 0.9 * planned)


@pytest.mark.parametrize("count", [0, 3, 7])
def test_blocks_of_a_gguf_file_are_moved_as_they_are(count):
    pytest.importorskip("gguf")
    torch.manual_seed(0)
    network, x = gguf_files.keep(Stack()), torch.randn(2, 16)
    assert len(kept_layers(network)) == 12
    with torch.inference_mode():
        expected = network(x)
    sizes, outline = sizes_of(network, network.blocks), gguf_files.keep(Stack()).to("meta")
    assert sizes.total < 0.3 * sizes_of(Stack(), []).total
    planned = sizes.with_in_turn(count) + activations(lambda: outline(x.to("meta")))
    peak, output = counted_peak(network, network.blocks, count, lambda: network(x))
    assert torch.equal(output, expected)
    assert 0.9 * planned < peak <= planned


@pytest.mark.parametrize("name", ["tinyflux", "flux1", "flux2", "flux3", "sd3"])
@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_denoiser_within_a_budget_gives_an_equal_prediction(name, precision):
    torch.manual_seed(0)
    denoiser = SMALL[name]().eval()
    if precision is not None:
        pack(denoiser, precision)
    denoiser_blocks = [block.module for block in denoiser.block_stack()]
    x, t, cond = example(denoiser)
    with torch.inference_mode(), LiveBytes() as counter:
        expected = denoiser(x, t, cond).sample
    working = max(live for _, live in counter.history)
    sizes = sizes_of(denoiser, denoiser_blocks)
    buffers = sum(buffer.nbytes for buffer in denoiser.buffers())
    budget = sizes.with_in_turn(sizes.most_in_turn) + buffers + working

    def two_steps():
        denoiser(x, t, cond)
        return denoiser(x, t, cond).sample

    peak, output = counted_peak(denoiser, denoiser_blocks, sizes.most_in_turn, two_steps)
    assert torch.equal(output, expected) and peak <= budget
    with torch.inference_mode():
        assert torch.equal(denoiser(x, t, cond).sample, expected)


@pytest.mark.parametrize("kind", ["T5EncoderModel", "Qwen3Model"])
def test_an_encoder_within_a_budget_gives_equal_embeddings(kind):
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "num_layers": 6, "d_model": 32, "d_ff": 64, "d_kv": 16}
    if kind == "Qwen3Model":
        sizes = {"vocab_size": 32, "num_hidden_layers": 6, "hidden_size": 32, "head_dim": 16}
        sizes |= {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = getattr(
        transformers, kind.replace("EncoderModel", "Config").replace("Model", "Config")
    )
    network = getattr(transformers, kind)(config(**sizes)).eval()
    ids = torch.arange(8)[None]

    def encode():
        output = network(input_ids=ids, output_hidden_states=True)
        return torch.stack(output.hidden_states)

    with torch.inference_mode(), LiveBytes() as counter:
        expected = encode()
    working = max(live for _, live in counter.history)
    blocks, buffers = blocks_of(network), sum(buffer.nbytes for buffer in network.buffers())
    peak, output = counted_peak(network, blocks, 5, encode)
    assert len(blocks) == 6 and torch.equal(output, expected)
    assert peak <= sizes_of(network, blocks).with_in_turn(5) + buffers + working


def test_a_skipped_block_is_not_copied_and_the_wrong_guess_is_dropped():
    network = Stack()
    sizes = sizes_of(network, network.blocks)

    def skipping():
        return network.blocks[7](network.blocks[3](torch.zeros(1, 64)))

    peak, _ = counted_peak(network, network.blocks, 7, skipping)
    assert peak <= sizes.with_in_turn(7) + 64 * 4 * 8


def test_a_freed_network_leaves_no_copy():
    network = Stack()
    offload = BlockOffload(network, network.blocks, CPU, 4)
    offload.load()
    network(torch.zeros(1, 16))
    alive = weakref.ref(network.blocks[2])
    gc.disable()
    try:
        del network, offload
        assert alive() is None
    finally:
        gc.enable()


def test_few_blocks_in_turn_are_chosen_and_spread():
    sizes = BlockSizes(10, (5,) * 10)
    assert sizes.total == 60 and sizes.with_in_turn(0) == 60
    assert sizes.with_in_turn(3) == 55 and sizes.with_in_turn(9) == 25
    assert [sizes.fewest_in_turn(budget) for budget in (60, 59, 50, 25, 24)] == [0, 3, 4, 9, None]
    assert in_turn(3, 10) == [2, 5, 8] and in_turn(9, 10) == list(range(1, 10))
    assert BlockSizes(10, (5, 5, 5)).most_in_turn == 0
    assert sizes.plus(7).total == 67


def test_only_outermost_lists_hold_blocks():
    network = nn.Sequential(Stack(), nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)])]))
    assert len(blocks_of(network)) == 9
