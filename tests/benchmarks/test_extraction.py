"""The peer of the extraction benchmark computes what it is compared with."""

import pytest
import torch

from benchmarks import original_extraction as original
from benchmarks.extraction import attention_bytes, inputs, teacher
from tinyflux_pl.experts.lune_features import mid_block_mean
from tinyflux_pl.experts.sol_attention import capture_layers, summarise


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return teacher((32, 32, 32, 32), 16)


@torch.inference_mode()
def test_both_ways_give_equal_features_and_statistics(network):
    batch = inputs(2, 16, 16)
    torch.testing.assert_close(mid_block_mean(network, *batch), original.lune(network, *batch))
    result = summarise(capture_layers(network, *batch), 8, literal=True)
    for actual, expected in zip(result, original.sol(network, *batch), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_attention_of_the_peer_leaves_no_trace_in_the_network(network):
    batch = inputs(1, 16, 16)
    before = dict(network.unet.attn_processors)
    with torch.inference_mode():
        original.sol(network, *batch)
    assert network.unet.attn_processors == before


def test_statistics_of_one_layer_need_a_twentieth_of_all_attention_maps():
    result, peer = attention_bytes(rows=1)
    assert 0 < 20 * result < peer
