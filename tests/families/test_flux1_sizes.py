"""FLUX.1 without weights: parameters, plan, and the grid of times."""

import numpy as np
import pytest
import torch

from tests.families import table

PARAMETERS = {
    "flux1_dev": (11_901_408_320, 11.90),
    "flux1_schnell": (11_891_178_560, 11.89),
    "flux1_kontext": (11_901_408_320, 11.90),
    "flux1_fill": (11_902_391_360, 11.90),
}


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("side", [256, 512, 1024, 1360])
def test_the_time_grid_equals_the_schedulers(side, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    from tinyflux_pl.diffusion.grids import grid
    from tinyflux_pl.diffusion.paths import LinearPath
    from tinyflux_pl.diffusion.shifts import shift_for

    tokens = (side // 16) ** 2
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens))
    times = grid(steps, LinearPath(noise_at=1), shift_for("flux1", tokens, steps))
    torch.testing.assert_close(times, scheduler.sigmas, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameter_counts_equal_the_published_model(model):
    exact, billions = PARAMETERS[model]
    parameters = table.Family.of(model).parameters
    assert parameters == exact and round(parameters / 1e9, 2) == billions


def test_the_memory_plan_needs_no_weights(tmp_path, capsys):
    from tests.app.runs import run

    run("generate", tmp_path, "model=flux1_dev", "plan=only")
    output = capsys.readouterr().out
    for count in ("11,901,408,320", "83,819,683", "4,762,310,656", "123,060,480"):
        assert count in output
    assert "22.17 GiB" in output and "1024 x 1024" in output
    assert "31.13 GiB" in output  # network and T5, and 0.09 GiB of activations
