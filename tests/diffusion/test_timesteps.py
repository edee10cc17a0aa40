"""Training times and sampling grids: inside (0, 1), and shifted towards noise on every path."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.grids import grid
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, progress_toward
from tinyflux_pl.diffusion.shifts import (
    flux_shift,
    flux_unshift,
    resolution_shift,
    shift_time,
    step_shift,
)
from tinyflux_pl.diffusion.timesteps import (
    DISTRIBUTIONS,
    LogitNormal,
    Mode,
    Stratified,
    TableEntries,
    Uniform,
)

PATHS = [LinearPath(0), LinearPath(1), VPPath()]
U = (torch.arange(4000) + 0.5) / 4000


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize(
    "make", [Uniform, LogitNormal, Mode, lambda **k: Stratified(LogitNormal(**k))]
)
def test_shift_above_one_favours_noise_for_either_time_convention(path, make):
    plain, pushed = (
        progress_toward(path, make(shift=s)(U, path), "noise").mean() for s in (1.0, 3.0)
    )
    assert pushed > plain + 0.1
    back = progress_toward(path, make(shift=3.0, toward="data")(U, path), "noise").mean()
    assert back < plain - 0.1


def test_positive_mean_favours_noise():
    for path in PATHS:
        assert progress_toward(path, LogitNormal(mean=1.0)(U, path), "noise").mean() > 0.65


@pytest.mark.parametrize("sampler", [Uniform(7.0), LogitNormal(std=9.0), Mode(), Stratified()])
def test_times_are_fp32_and_exclude_the_ends(sampler):
    t = sampler(torch.tensor([1e-7, 0.3, 1 - 6e-8]), PATHS[0])
    assert t.dtype == torch.float32 and t.shape == (3,)
    assert t.min() >= 1e-4 and t.max() <= 1 - 1e-4


def test_logit_normal_times_have_the_right_quantiles():
    t = LogitNormal()(torch.tensor([0.5, 0.8413447]), LinearPath(1))
    torch.testing.assert_close(t, torch.sigmoid(torch.tensor([0.0, 1.0])))


def test_mode_without_scale_is_uniform_and_with_it_prefers_the_middle():
    path = LinearPath(1)
    torch.testing.assert_close(Mode(scale=0.0)(U, path), 1 - U.clamp(1e-4, 1 - 1e-4))
    centre = (Mode(scale=1.29)(U, path) - 0.5).abs() < 0.25
    assert centre.float().mean() > 0.55


@pytest.mark.parametrize("base", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("shift", [None, 3.0])
def test_stratified_visits_every_stratum_of_any_distribution_once(base, shift):
    """One time in each of 16 strata of equal mass, bounded by quantiles."""
    numbers = {} if shift is None or base == "table" else {"shift": shift}
    path, base_times = LinearPath(1), DISTRIBUTIONS[base](**numbers)
    t = Stratified(base, **numbers)(
        torch.rand(16, generator=torch.Generator().manual_seed(0)), path
    )
    edges = base_times(torch.arange(1, 16) / 16, path)
    if edges[0] > edges[-1]:
        edges = edges.flip(0)
    counts = torch.bucketize(t, edges.contiguous()).bincount(minlength=16)
    assert counts.tolist() == [1] * 16
    plain = base_times(torch.rand(16, generator=torch.Generator().manual_seed(0)), path)
    assert torch.bucketize(plain, edges.contiguous()).bincount(minlength=16).max() > 1


def test_stratified_accepts_only_the_parameters_of_its_base():
    path, u = LinearPath(1), torch.full((4,), 0.5)
    base_times = LogitNormal(mean=1.0, std=0.5, shift=2.0, toward="data")
    named = Stratified("logit_normal", mean=1.0, std=0.5, shift=2.0, toward="data")
    assert torch.equal(named(u, path), Stratified(base_times)(u, path))
    for base, numbers in (
        ("uniform", {"mean": 0.0}),
        ("table", {"shift": 2.0}),
        (base_times, {"mean": 0.0}),
    ):
        with pytest.raises(ConfigError, match=f"has no {next(iter(numbers))}"):
            Stratified(base, **numbers)
    with pytest.raises(ConfigError, match="no distribution 'gauss'") as caught:
        Stratified("gauss")
    assert "logit_normal" in caught.value.cure


def test_discrete_times_are_exactly_the_table_entries_with_equal_frequency():
    t = TableEntries()(U, VPPath())
    entries = t.double() * 999
    assert (entries - entries.round()).abs().max() < 1e-3 and t.dtype == torch.float32
    assert entries.round().long().bincount(minlength=1000).tolist() == [4] * 1000
    with pytest.raises(ConfigError, match="entries=1"):
        TableEntries(1)


@pytest.mark.parametrize("kind", [Uniform, LogitNormal, Mode, lambda **k: Stratified("beta", **k)])
def test_a_dynamic_shift_follows_the_number_of_image_tokens(kind):
    path = LinearPath(1)
    for rule, shift in (
        ("flux1", resolution_shift),
        ("flux2", lambda tokens: step_shift(tokens, 50)),
    ):
        for tokens in (256, 4096):
            torch.testing.assert_close(
                kind(shift=rule)(U, path, tokens), kind(shift=shift(tokens))(U, path)
            )
    with pytest.raises(ConfigError, match="needs to know the image"):
        kind(shift="flux1")(U, path)
    with pytest.raises(ConfigError, match="shift='sd9'"):
        kind(shift="sd9")


def test_shift_round_trip():
    t = torch.linspace(0, 1, 11)
    torch.testing.assert_close(flux_unshift(flux_shift(t, 3.0), 3.0), t)
    # exp(1.15): FLUX.1 at 1024 pixels
    assert resolution_shift(4096) == pytest.approx(3.1582, abs=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("toward", ["noise", "data"])
def test_grid_runs_from_noise_to_data_and_ends_exactly_there(path, toward):
    for shift in (1.0, 3.0, 1.1, 0.1):  # fp32 rounds 0.1 / (1 + (0.1 - 1)) beside 1
        times = grid(28, path, shift, toward)
        assert times.dtype == torch.float32 and len(times) == 29
        assert (float(times[0]), float(times[-1])) == (path.t_noise, path.t_data)
        assert (progress_toward(path, times, "data").diff() > 0).all()


def test_grid_shift_is_applied_once_and_lengthens_the_noisy_part():
    path = LinearPath(1)
    torch.testing.assert_close(grid(4, path, 3.0), torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))
    mirrored = grid(4, LinearPath(0), 3.0)
    torch.testing.assert_close(mirrored, torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0]))
    torch.testing.assert_close(shift_time(grid(4, path), 3.0, path), grid(4, path, 3.0))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Uniform(shift=0.0), "positive"),
        (lambda: LogitNormal(toward="clean"), "noise, or data"),
        (lambda: LogitNormal(std=0.0), "positive"),
        (lambda: Mode(scale=3.0), "1.752"),
        (lambda: grid(0, PATHS[0]), "at least 1"),
    ],
)
def test_invalid_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
