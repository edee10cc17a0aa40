"""FluxFlow's tables, targets, solver and autoencoder losses are those of the original."""

import pytest
import torch

from tests.parity.test_functions import close, fixture
from tinyflux_pl.diffusion import losses, prediction, solvers
from tinyflux_pl.diffusion.paths import VPPath, expand_like


@pytest.fixture(scope="module")
def fluxflow():
    return fixture("fluxflow_schedule")


@pytest.mark.parametrize(
    "name, settings",
    [
        ("linear", {"schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        ("scaled_linear", {}),
    ],
)
def test_vp_tables_of_fluxflow(fluxflow, name, settings):
    path, t = VPPath(**settings), torch.arange(1000, dtype=torch.float64) / 999
    close(path.alpha(t), fluxflow[f"output.alpha_{name}"])
    close(path.sigma(t), fluxflow[f"output.sigma_{name}"])


def test_v_targets_of_fluxflow(fluxflow):
    path = VPPath("linear", 1e-4, 0.02)
    z0, eps, t = fluxflow["input.z0"], fluxflow["input.eps"], fluxflow["input.t"] / 999
    close(path.interpolate(z0, eps, t), fluxflow["output.zt_exact"])
    close(prediction.target("v", z0, eps, t, path), fluxflow["output.v_target"])


@pytest.mark.parametrize(
    "case, settings, count",
    [
        ("pipeline", {}, 10),
        ("trailing", {"schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}, 10),
        ("trailing", {"schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}, 20),
    ],
)
def test_dpmpp_2m_trajectory_equals_diffusers(fluxflow, case, settings, count):
    """v = x / 2 + sin(timestep / 100) / 10: a field without data, so every coefficient matters."""
    path, expected = VPPath(**settings), fluxflow[f"output.traj_{case}{count}"]
    grid = fluxflow[f"output.{case}_timesteps_{count}"].double() / 999

    def field(x, t):
        return prediction.convert(
            x / 2 + expand_like((t * 9.99).sin(), x) / 10, x, t, path, "v", "velocity"
        )

    states = []
    x = solvers.dpmpp_2m(
        field, expected[0].double(), grid, path, lambda _, state: states.append(state)
    )
    last = grid[-1:].expand(2)
    states.append(prediction.to_data_and_noise("velocity", field(x, last), x, last, path)[0])
    close(torch.stack(states), expected[1:], 1e-4)


def test_losses_of_the_fluxflow_autoencoder():
    f = fixture("fluxflow_losses")
    real, fake = (f[f"input.{k}_logits"].flatten(1).mean(1) for k in ("real", "fake"))
    close(losses.hinge_critic(real, fake), f["output.d_hinge"])
    close(losses.hinge_generator(fake), f["output.g_hinge"])
    for bits in (0.0, 0.1, 0.5):
        close(
            losses.kl(f["input.mu"], f["input.logvar"], bits).mean(),
            f[f"output.kl_fb{bits}_normTrue"],
        )
