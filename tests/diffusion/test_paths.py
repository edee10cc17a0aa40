"""Paths own the clock: ends, inverses, rates, and the map between two clocks."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import (
    LinearPath,
    VPPath,
    build_path,
    match_log_snr,
    progress_toward,
    time_at,
)

PATHS = {
    "tinyflux": LinearPath(0),
    "flux": LinearPath(1),
    "sd": VPPath(),
    "fluxflow": VPPath("linear", 1e-4, 0.02),
    "zero_snr": VPPath(zero_terminal_snr=True),
}


@pytest.fixture(params=PATHS.values(), ids=PATHS.keys())
def path(request):
    return request.param


def inner(dtype=torch.float64, count=61):
    return torch.linspace(0.013, 0.983, count, dtype=dtype)


def test_the_linear_path_ends_in_data_and_noise():
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    for path in (PATHS["tinyflux"], PATHS["flux"]):
        assert torch.equal(path.interpolate(data, noise, torch.full((2,), path.t_noise)), noise)
        assert torch.equal(path.interpolate(data, noise, torch.full((2,), path.t_data)), data)
    t = torch.tensor([0.2, 0.9])
    assert torch.equal(PATHS["tinyflux"].velocity(data, noise, t), data - noise)
    assert torch.equal(PATHS["flux"].velocity(data, noise, t), noise - data)


def test_the_vp_path_equals_stable_diffusions_table():
    path = PATHS["sd"]
    assert (path.t_noise, path.t_data) == (1.0, 0.0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    index = torch.tensor([0, 1, 500, 998, 999])
    torch.testing.assert_close(path.alpha(index.double() / 999) ** 2, alpha_bar[index])


def test_zero_terminal_snr_ends_in_pure_noise():
    path = PATHS["zero_snr"]
    assert float(path.alpha(torch.ones(1))) < 1e-6
    assert float(path.alpha(torch.zeros(1))) == pytest.approx(
        float(PATHS["sd"].alpha(torch.zeros(1)))
    )
    assert torch.isfinite(path.log_snr(torch.tensor([0.0, 1.0]))).all()


def test_log_snr_falls_towards_noise_is_finite_and_agrees_with_alpha_and_sigma(path):
    t = inner()
    assert torch.isfinite(path.log_snr(torch.tensor([0.0, 1.0]))).all()
    towards_noise = path.log_snr(t if path.t_noise == 1 else t.flip(0))
    assert (towards_noise.diff() < 0).all()
    torch.testing.assert_close(path.log_snr(t), 2 * (path.alpha(t) / path.sigma(t)).log())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_time_of_log_snr_is_the_inverse(path, dtype, tolerance):
    t = inner(dtype)
    assert (path.time_of_log_snr(path.log_snr(t)) - t).abs().max() < tolerance
    assert path.time_of_log_snr(path.log_snr(t)).dtype == dtype


def test_velocity_is_the_derivative_of_the_interpolation(path):
    data, noise, t = torch.randn(61, 5).double(), torch.randn(61, 5).double(), inner()
    step = 1e-7
    slope = (path.interpolate(data, noise, t + step) - path.interpolate(data, noise, t - step)) / (
        2 * step
    )
    torch.testing.assert_close(path.velocity(data, noise, t), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 8, 8), (4, 16, 2, 2, 2)])
def test_time_broadcasts_over_any_trailing_dimensions(path, shape):
    data, noise, t = torch.randn(shape), torch.randn(shape), torch.tensor([0.1, 0.4, 0.7, 0.9])
    row = path.interpolate(data[2:3], noise[2:3], t[2:3])
    assert torch.equal(path.interpolate(data, noise, t)[2:3], row)


def test_match_equates_log_snr_and_mirrors_the_two_linear_clocks():
    t = torch.tensor([0.1, 0.5, 0.8])
    torch.testing.assert_close(
        match_log_snr(PATHS["tinyflux"], PATHS["flux"], t), torch.tensor([0.9, 0.5, 0.2])
    )
    mapped = match_log_snr(PATHS["tinyflux"], PATHS["sd"], t)
    torch.testing.assert_close(
        PATHS["sd"].log_snr(mapped), PATHS["tinyflux"].log_snr(t), rtol=1e-4, atol=1e-4
    )
    assert (mapped.diff() < 0).all(), (
        "later on TinyFlux's clock is cleaner, hence earlier on DDPM's"
    )


def test_match_beyond_a_table_is_clamped_to_its_end():
    ends = match_log_snr(PATHS["tinyflux"], PATHS["sd"], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0]))


def test_progress_is_0_at_one_end_of_a_path_and_1_at_the_other(path):
    ends = torch.tensor([path.t_noise, path.t_data])
    assert progress_toward(path, ends, "noise").tolist() == [1, 0]
    assert progress_toward(path, ends, "data").tolist() == [0, 1]
    t = inner()
    torch.testing.assert_close(time_at(path, progress_toward(path, t, "noise"), "noise"), t)


def test_config_round_trip(path):
    assert build_path(path.name, path.config()) == path


def test_half_precision_time_is_refused(path):
    with pytest.raises(ConfigError, match="bfloat16"):
        path.alpha(torch.zeros(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: build_path("cubic"), "linear"),
        (lambda: build_path("vp", {"beta": 1}), "beta_start"),
        (lambda: VPPath("cosin"), "scaled_linear"),
        (lambda: VPPath(beta_start=0.5, beta_end=0.1), "beta_start <= beta_end"),
        (lambda: LinearPath(2), "TinyFlux"),
    ],
)
def test_errors_for_invalid_settings_list_the_valid_ones(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
