"""Any kind of prediction turns into any other, on any path, and back."""

import itertools

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.prediction import KINDS, convert, target, to_data_and_noise

PATHS = [LinearPath(0), LinearPath(1), VPPath(), VPPath(zero_terminal_snr=True)]


def case(dtype=torch.float64, edge=0.01):
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(9, 2, 3, 3, generator=generator, dtype=dtype) for _ in range(2))
    return data, noise, torch.linspace(edge, 1 - edge, 9, dtype=dtype)


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_gives_back_data_and_noise(path, kind):
    data, noise, t = case()
    x0, recovered = to_data_and_noise(
        kind, target(kind, data, noise, t, path), path.interpolate(data, noise, t), t, path
    )
    torch.testing.assert_close(x0, data, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(recovered, noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", PATHS[:3], ids=str)
@pytest.mark.parametrize("kinds", itertools.permutations(KINDS, 2), ids="-".join)
def test_round_trip_of_an_imperfect_prediction(path, kinds):
    _, x_t, t = case()
    output = torch.randn(x_t.shape, dtype=x_t.dtype, generator=torch.Generator().manual_seed(1))
    there = convert(output, x_t, t, path, *kinds)
    torch.testing.assert_close(
        convert(there, x_t, t, path, *reversed(kinds)), output, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_conversions_are_finite_at_both_ends_in_fp32(path, kind):
    data, noise, _ = case(torch.float32)
    for end in (path.t_noise, path.t_data):
        t = torch.full((9,), end)
        x_t = path.interpolate(data, noise, t)
        x0, recovered = to_data_and_noise(kind, target(kind, data, noise, t, path), x_t, t, path)
        assert x0.abs().max() < 10 and recovered.abs().max() < 10
        if kind in ("velocity", "v"):
            torch.testing.assert_close(x0, data, rtol=1e-3, atol=1e-3)


def test_v_at_equal_signal_and_noise_is_velocity_scaled():
    path, (data, noise, _) = VPPath(), case()
    t = path.time_of_log_snr(torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(target("v", data, noise, t, path), (noise - data) / 2**0.5)


def test_unknown_kind_names_the_valid_ones():
    data, noise, t = case()
    for call in (
        lambda: target("eps", data, noise, t, PATHS[0]),
        lambda: convert(data, noise, t, PATHS[0], "eps", "eps"),
    ):
        with pytest.raises(ConfigError, match="epsilon"):
            call()
