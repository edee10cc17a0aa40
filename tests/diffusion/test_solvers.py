"""Solvers against the exact flow of N(2, 0.5^2): order of convergence in fp64 on every path."""

import math

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.grids import grid
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, expand_like
from tinyflux_pl.diffusion.solvers import SOLVERS, solver_named

MEAN, STD = 2.0, 0.5
PATHS = {
    "tinyflux": LinearPath(0),
    "flux": LinearPath(1),
    "vp": VPPath(),
    "zero_snr": VPPath(zero_terminal_snr=True),
}
ORDERS = {"euler": 0.9, "heun": 1.8, "dpmpp_2m": 1.8, "unipc": 2.6}

EXACT = [name for name in SOLVERS if name != "euler_ancestral"]  # which adds noise anew


def spread(path, t):
    return (path.alpha(t).square() * STD**2 + path.sigma(t).square()).sqrt()


class Exact:
    """dx/dt of the Gaussian, counting its evaluations."""

    def __init__(self, path):
        self.path, self.calls, self.times = path, 0, []

    def __call__(self, x, t):
        self.calls += 1
        self.times.append(float(t[0]))
        a, s, da, ds = (expand_like(f(t), x) for f in self._parts())
        slope = (a * da * STD**2 + s * ds) / (a.square() * STD**2 + s.square())
        return da * MEAN + slope * (x - a * MEAN)

    def _parts(self):
        p = self.path
        return p.alpha, p.sigma, p.alpha_rate, p.sigma_rate


def even_in_log_snr(path, steps):
    """A grid on which every solver shows its order: finite steps and smooth time."""
    ends = path.log_snr(torch.tensor([path.t_noise, path.t_data], dtype=torch.float64)).clamp(-8, 8)
    return path.time_of_log_snr(
        torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
    )


def error(name, path, times):
    x = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start, end = (times[i].expand(50) for i in (0, -1))
    z = (x - expand_like(path.alpha(start), x) * MEAN) / expand_like(spread(path, start), x)
    truth = expand_like(path.alpha(end), x) * MEAN + expand_like(spread(path, end), x) * z
    return float((SOLVERS[name](Exact(path), x, times, path) - truth).square().mean().sqrt())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_order_of_convergence(name, path):
    coarse, fine = (error(name, path, even_in_log_snr(path, steps)) for steps in (32, 128))
    assert math.log(coarse / fine) / math.log(4) > ORDERS[name]
    assert fine < (0.02 if name == "euler" else 0.002)


@pytest.mark.parametrize(
    "name, bound", [("euler", 0.08), ("heun", 0.012), ("dpmpp_2m", 0.08), ("unipc", 0.05)]
)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_error_on_the_default_sampling_grid_is_bounded(name, path, bound):
    assert error(name, path, grid(28, path).double()) < bound


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_second_order_solvers_beat_euler_at_equal_cost(path):
    euler, heun, dpmpp_2m = (grid(steps, path).double() for steps in (40, 20, 40))
    assert error("heun", path, heun) < error("euler", path, euler)
    assert error("dpmpp_2m", path, dpmpp_2m) < error("euler", path, euler)


def test_euler_on_the_linear_path_is_the_plain_step():
    path, x = PATHS["tinyflux"], torch.randn(4, 3, 2, 2)
    times, state = grid(7, path, 3.0), x
    for i in range(7):
        state = state + (times[i + 1] - times[i]) * Exact(path)(state, times[i].expand(4))
    torch.testing.assert_close(
        SOLVERS["euler"](Exact(path), x, times, path), state, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name, calls", [("euler", 8), ("heun", 15), ("dpmpp_2m", 8), ("unipc", 8)])
def test_number_of_evaluations_is_exact_and_none_is_at_clean_data(name, calls):
    path, seen = PATHS["flux"], []
    field = Exact(path)
    SOLVERS[name](
        field, torch.randn(2, 1), grid(8, path), path, lambda i, x: seen.append((i, x.shape))
    )
    assert field.calls == calls and path.t_data not in field.times
    assert seen == [(i, (2, 1)) for i in range(8)]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_fp32_agrees_with_fp64(name, path):
    times, x = grid(28, path, 3.0), torch.randn(20, 1)
    low = SOLVERS[name](Exact(path), x, times, path)
    high = SOLVERS[name](Exact(path), x.double(), times.double(), path)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=1e-3, atol=1e-3)


def test_statistics_at_eight_shifted_steps_are_the_published_ones():
    """Diffusers' DPM-Solver++ with flow sigmas and flow_shift 3 gives a deviation of 0.370 here."""
    path, x = PATHS["flux"], torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean()) / x.std()
    out = SOLVERS["dpmpp_2m"](Exact(path), x, grid(8, path, 3.0), path)
    assert float(out.mean()) == pytest.approx(2.0, abs=0.003) and float(out.std()) == pytest.approx(
        0.370, abs=0.01
    )


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_unipc_equals_diffusers(steps):
    """Their scheduler, order 2 with B2(h), on the same levels of noise and the same velocities."""
    from diffusers import UniPCMultistepScheduler

    path = PATHS["flux"]
    times = path.time_of_log_snr(torch.linspace(-8, 8, steps + 1, dtype=torch.float64))
    times[-1] = 0
    scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=2, flow_shift=1.0
    )
    scheduler.set_timesteps(steps)
    scheduler.sigmas = times
    field, start = Exact(path), torch.randn(50, 1, dtype=torch.float64)
    x = start
    for i, step in enumerate(scheduler.timesteps):
        x = scheduler.step(field(x, times[i].expand(50)), step, x, return_dict=False)[0]
    actual = SOLVERS["unipc"](Exact(path), start, times, path)
    torch.testing.assert_close(actual, x.double(), rtol=1e-4, atol=1e-4)


def test_unknown_solver_names_the_valid_ones():
    with pytest.raises(ConfigError, match="dpmpp_2m"):
        solver_named("plms")
