"""A released family trains at the time distribution of its release unless configured otherwise."""

import pytest
import torch

from tests.app.runs import configuration, settings
from tests.families.table import families
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.app.run import generate
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.shifts import shift_for
from tinyflux_pl.diffusion.timesteps import LogitNormal, Uniform

U = (torch.arange(64) + 0.5) / 64
EPSILON = ("sdxl",)  # drawn at entries of a table of betas


@pytest.mark.parametrize("name", families())
def test_a_family_trains_with_the_shift_of_its_release(tmp_path, name):
    config = release_settings.with_release_settings(settings("train", tmp_path, f"model={name}"))
    path, times = build(config.path), build(config.timesteps)
    for tokens in (1024, 4096):
        if name in EPSILON:
            entries = times(U, path, tokens).double() * 999
            assert (
                torch.equal(entries.round(), (U.double() * 1000).floor())
                and (entries - entries.round()).abs().max() < 1e-3
            )
        else:
            shift = shift_for(config.sampler["shift"], tokens, 50)
            torch.testing.assert_close(times(U, path, tokens), LogitNormal(shift=shift)(U, path))
            assert (times.shift == "flux1") == (
                name in ("flux1_dev", "flux1_kontext", "flux1_fill")
            )


def test_the_published_tinyflux_trains_with_its_shift(tmp_path):
    times = build(configuration("train", tmp_path, "model=deep_v42")["timesteps"])
    assert times == LogitNormal(shift=3.0, toward="data")


@pytest.mark.parametrize(
    "line", [("timesteps=uniform", "model=flux1_dev"), ("model=sdxl", "timesteps=uniform")]
)
def test_a_configured_time_distribution_takes_precedence(tmp_path, line):
    assert build(configuration("train", tmp_path, *line)["timesteps"]) == Uniform()


def test_training_times_of_every_family_can_be_stratified(tmp_path):
    line = (
        "model=flux1_dev",
        "timesteps=stratified",
        "timesteps.base=logit_normal",
        "timesteps.shift=flux1",
    )
    times = build(configuration("train", tmp_path, *line)["timesteps"])
    drawn = times(torch.full((64,), 0.5), LinearPath(1), 4096)
    torch.testing.assert_close(drawn, LogitNormal(shift="flux1")(U, LinearPath(1), 4096))


def test_generate_refuses_training_time_settings(tmp_path):
    with pytest.raises(ConfigError, match="drawing does not read timesteps") as caught:
        generate(configuration("generate", tmp_path, "model=flux1_dev", "timesteps=uniform"))
    assert "sampler.shift" in caught.value.cure
