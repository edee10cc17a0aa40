"""Rotation by position: norms kept, products depend on distance, fp32 whatever the weights."""

import copy

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tinyflux_pl.nets.position_ids import grid_ids
from tinyflux_pl.nets.rope import RotaryEmbedding, apply_rotary


def test_dot_products_depend_only_on_relative_positions():
    rope = RotaryEmbedding((4, 6, 6))
    q, k = torch.randn(2, 1, 3, 1, 16)
    ids = torch.tensor([[0.0, 1, 2], [0, 4, 9]])

    def product(shift):
        table = rope(ids + shift)
        return (apply_rotary(q, table[:1]) * apply_rotary(k, table[1:])).sum(-1)

    assert torch.allclose(product(0.0), product(torch.tensor([3.0, 5, 7])), atol=1e-4)
    assert not torch.allclose(product(0.0), (q * k).sum(-1), atol=1e-2)


def test_rotation_is_the_adjacent_pair_formula_and_keeps_norms():
    table = RotaryEmbedding((4, 6, 6))(grid_ids(3, 5))
    x = torch.randn(2, 3, 15, 16)
    out = apply_rotary(x, table)
    cos, sin = table.unbind(-1)
    assert torch.allclose(out[..., 0::2], x[..., 0::2] * cos - x[..., 1::2] * sin, atol=1e-6)
    assert torch.allclose(out[..., 1::2], x[..., 1::2] * cos + x[..., 0::2] * sin, atol=1e-6)
    assert torch.allclose(out.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_frequencies_stay_fp32_and_are_saved_only_in_the_published_layout():
    ids = grid_ids(8, 8)
    for in_checkpoint in (False, True):
        rope = RotaryEmbedding((8, 12, 12), in_checkpoint=in_checkpoint)
        before = rope(ids)
        assert torch.equal(rope.to(torch.bfloat16)(ids), before)
        assert bool(rope.state_dict()) is in_checkpoint


def test_frequencies_are_computed_once_and_move_with_the_module():
    ids, table = grid_ids(3, 4), RotaryEmbedding((8, 12, 12))(grid_ids(3, 4))
    with torch.device("meta"):
        outline = RotaryEmbedding((8, 12, 12))
    rope = copy.deepcopy(RotaryEmbedding((8, 12, 12)).half())
    for table_of_module in (
        outline,
        outline.to_empty(device="cpu"),
        rope,
        rope.to("meta").to_empty(device="cpu"),
    ):
        assert torch.equal(table_of_module(ids), table) and not list(table_of_module.buffers())
    there = rope.to("meta")
    with Calls() as calls:
        assert there(ids.to("meta")).is_meta
    assert "aten::_to_copy" in calls.seen, "the ids themselves"
    assert calls.seen.count("aten::_to_copy") == 1 and not {"aten::arange", "aten::pow"} & set(
        calls.seen
    )


class Calls(TorchDispatchMode):
    """Names of the executed operations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), named=None):
        self.seen.append(function.name().split(".")[0])
        return function(*args, **(named or {}))


def test_bf16_input_is_rotated_in_fp32():
    out = apply_rotary(
        torch.ones(1, 1, 4, 8).bfloat16(), RotaryEmbedding((2, 2, 4))(grid_ids(2, 2))
    )
    assert out.dtype == torch.float32
