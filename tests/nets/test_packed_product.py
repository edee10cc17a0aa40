"""One product with a packed weight: its values, its gradient, and its door for plans."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tinyflux_pl.denoisers.gguf_linear import RowBlocks
from tinyflux_pl.engine.weight_formats import FORMATS
from tinyflux_pl.nets.packed_product import Packed, product


@dataclass(frozen=True)
class Halved:
    """A weight stored as its half, with or without scales of output channels."""

    scales: bool

    def values(self, stored, dtype):
        return stored[0].to(dtype) * 2

    def scale(self, stored):
        return stored[1] if self.scales else None


def case(scales):
    torch.manual_seed(0)
    weight, scale = torch.randn(6, 4), torch.rand(6) + 0.5
    meant = 2 * weight * (scale[:, None] if scales else 1)
    return (weight, scale), meant, torch.randn(3, 5, 4), torch.randn(6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scales", [True, False])
def test_values_and_gradient_are_those_of_the_multiplied_out_weight(scales, dtype):
    stored, weight, x, bias = case(scales)
    x = x.to(dtype).requires_grad_()
    plain = x.detach().clone().requires_grad_()
    output = product(x, stored, bias, Halved(scales))
    expected = F.linear(plain, weight.to(dtype), bias.to(dtype))
    output.square().sum().backward()
    expected.square().sum().backward()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(x.grad, plain.grad, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert torch.equal(product(x, stored, bias, Halved(scales)), output)


def test_a_plan_sees_one_operation_and_the_tensors_that_it_reads():
    stored, _, x, bias = case(True)

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append((func, args))
            return func(*args, **(kwargs or {}))

    calls = []
    with Seen():
        product(x, stored, bias, Halved(True))
    (args,) = (args for func, args in calls if func is product)
    assert args[0] is x and args[1] is stored


def test_formats_and_blocks_of_gguf_files_multiply_by_the_same_product():
    assert all(isinstance(format, Packed) for format in FORMATS.values())
    assert issubclass(RowBlocks, Packed)
