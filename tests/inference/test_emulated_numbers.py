"""A CPU that emulates half precision is named with the cure before anything is drawn."""

import pytest
import torch
from torch import nn

from tinyflux_pl.inference import emulated_numbers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_cpu_without_it_is_named_with_the_cure(monkeypatch, dtype):
    monkeypatch.setattr(emulated_numbers, "has_fast_bf16", lambda _: False)
    network = nn.Sequential(nn.Linear(8, 8).to(dtype), nn.LayerNorm(8))
    (line,) = emulated_numbers.notes(network, "cpu")
    assert "model.dtype=float32" in line and str(dtype).removeprefix("torch.") in line


def test_native_or_full_precision_gives_no_note(monkeypatch):
    half, full = nn.Linear(8, 8).bfloat16(), nn.Linear(8, 8)
    monkeypatch.setattr(emulated_numbers, "has_fast_bf16", lambda _: False)
    assert emulated_numbers.notes(full, "cpu") == [] == emulated_numbers.notes(half, "cuda")
    monkeypatch.setattr(emulated_numbers, "has_fast_bf16", lambda _: True)
    assert emulated_numbers.notes(half, "cpu") == []
