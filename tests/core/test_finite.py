"""Nonfinite numbers are detected, and the stage and the parameter are named."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core.errors import NumericsError
from tinyflux_pl.core.finite import require_finite, require_finite_weights


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_nonfinite_value_names_its_stage(bad, dtype):
    values = torch.zeros(3, 4, dtype=dtype)
    require_finite(values, "the latents are", "sdxl")
    values[1, 2] = bad
    with pytest.raises(NumericsError, match=r"the latents are not finite[\s\S]*sdxl"):
        require_finite(values, "the latents are", "sdxl")


def test_nonfinite_parameters_are_named():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    require_finite_weights(net, "net")
    net[1].running_var[0] = float("nan")
    net[0].weight.data[0, 0] = float("inf")
    with pytest.raises(NumericsError, match=r"0\.weight, 1\.running_var"):
        require_finite_weights(net, "net")
    require_finite_weights(net.to("meta"), "net")  # nothing there has a value


def test_large_finite_values_pass_although_their_sum_overflows():
    require_finite(torch.full((4096,), 3e4, dtype=torch.float16), "the picture is", "codec")
