"""Guidance moves away from the null text, and CFG-Zero stands still at first."""

import pytest
import torch

from tests.sampling.test_loop import SHAPE, Gaussian, prompt
from tinyflux_pl.core import rng
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.sampling.loop import SamplerSettings, sample


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("path", [LinearPath(1), VPPath()], ids=["linear", "vp"])
def test_zero_init_steps_of_cfg_zero_keep_x_and_skip_the_network(path, solver):
    seen, counted = [], []
    denoiser = Gaussian(path, "velocity")
    denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[:2]))
    guidance = Guidance(3.0, "cfg_zero", zero_until=0.35)
    settings = SamplerSettings(steps=10, solver=solver, guidance=guidance)
    sample(
        denoiser,
        prompt(2.0),
        prompt(0.0),
        shape=SHAPE,
        sample_ids=[9],
        seed=3,
        settings=settings,
        progress=lambda done, total: counted.append((done, total)),
    )
    x, t = seen[0]
    assert torch.equal(x[:1], rng.normal(SHAPE, 3, "sampling", [9])) and float(
        t[0]
    ) == pytest.approx(0.6)
    assert counted == [(done, 10) for done in range(5, 11)]


def test_guidance_extrapolates_from_the_null_past_the_conditional():
    def mean(scale):
        settings = SamplerSettings(steps=20, guidance=Guidance(scale))
        text, null = prompt(2.0), prompt(1.0)
        return float(
            sample(
                Gaussian(LinearPath(), "velocity"),
                text,
                null,
                shape=SHAPE,
                sample_ids=range(50),
                seed=0,
                settings=settings,
                max_batch=50,
            ).mean()
        )

    assert mean(3.0) > mean(1.0) + 1
