"""The last bits of a network do not depend on where in a file its weights lie."""

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tinyflux_pl.core.alignment import ALIGNMENT, align


def loaded(folder, weights, padding):
    """A linear layer whose weights are mapped from a file, `padding` bytes later than another's."""
    file = folder / f"{padding}.safetensors"
    save_file({"a": torch.zeros(padding, dtype=torch.uint8), "weight": weights}, file)
    layer = nn.Linear(*weights.shape[::-1], bias=False)
    layer.load_state_dict({"weight": load_file(file)["weight"]}, assign=True)
    return layer


def test_equal_weights_give_equal_bits_from_any_place_in_a_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(384, 64, generator=generator)
    row = torch.randn(1, 64, generator=generator)
    layers = [loaded(tmp_path, weights, padding) for padding in (0, 4, 8, 12)]
    assert any(layer.weight.data_ptr() % ALIGNMENT for layer in layers)
    for layer in layers:
        align(layer)
    assert all(layer.weight.data_ptr() % ALIGNMENT == 0 for layer in layers)
    assert all(torch.equal(layer(row), layers[0](row)) for layer in layers)


def test_aligned_weights_are_not_copied_and_stay_parameters():
    layer = nn.Linear(8, 8)
    before = layer.weight.data_ptr()
    align(layer)
    assert layer.weight.data_ptr() == before and isinstance(layer.weight, nn.Parameter)
