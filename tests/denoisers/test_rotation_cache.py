"""Kept rotary embeddings: computed once a shape while sampling, and never in training."""

import pytest
import torch

from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.engine.packing import pack


def counted(embedding):
    calls, run = [], embedding.forward._run
    embedding.forward._run = lambda ids: calls.append(1) or run(ids)
    return calls


def test_positions_are_embedded_once_while_sampling_and_each_step_in_training():
    torch.manual_seed(0)
    denoiser = SMALL["flux1"]().eval()
    calls = counted(denoiser.net.pos_embed)
    x, t, cond = example(denoiser)
    with torch.no_grad():
        expected = denoiser(x, t, cond).sample
        smaller = denoiser(x[..., :2, :], t, cond).sample
    assert len(calls) == 2
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(denoiser(x, t, cond).sample, expected)
        assert torch.equal(denoiser(x[..., :2, :], t, cond).sample, smaller)
        assert len(calls) == 4
    denoiser(x[..., :2, :], t, cond).sample.sum().backward()
    assert len(calls) == 5


@pytest.mark.parametrize("name", ["flux1", "flux2", "flux3", "sd3", "sdxl"])
@pytest.mark.parametrize("precision", [None, "int8"])
def test_the_dtype_of_a_network_is_diffusers_own(name, precision):
    denoiser = SMALL[name]().to(torch.bfloat16)
    if precision is not None:
        pack(denoiser, precision)
    assert denoiser.net_dtype == denoiser.net.dtype == torch.bfloat16
