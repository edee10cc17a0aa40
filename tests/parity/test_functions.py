"""The mathematics of floor 1 gives the numbers of the public originals."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tinyflux_pl.diffusion import losses, prediction, shifts, timesteps, weighting
from tinyflux_pl.diffusion.averaging import lerp_
from tinyflux_pl.diffusion.grids import grid
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, expand_like
from tinyflux_pl.diffusion.schedules import LearningRate, Ramp

DATA = Path(__file__).parent / "data"
TINYFLUX = LinearPath(noise_at=0)


def fixture(name):
    return load_file(DATA / f"{name}.safetensors")


def close(actual, expected, tolerance=1e-5):
    scale = max(float(expected.abs().max()), 1e-12)
    assert float((actual.double() - expected.double()).abs().max()) <= tolerance * scale


@pytest.fixture(scope="module")
def schedules():
    return fixture("tinyfluxfn_schedules")


@pytest.mark.parametrize("shift", ["0.5", "1.0", "2.0", "3.0", "7.0"])
def test_shift_and_its_inverse(schedules, shift):
    close(shifts.flux_shift(schedules["grid"], float(shift)), schedules[f"flux_shift.{shift}"])
    close(shifts.flux_unshift(schedules["grid"], float(shift)), schedules[f"flux_unshift.{shift}"])


@pytest.mark.parametrize(
    "name, sampler",
    [
        ("default", timesteps.LogitNormal(shift=3.0, toward="data")),
        ("biased", timesteps.LogitNormal(mean=0.4, std=0.7, shift=2.0, toward="data")),
    ],
)
def test_logit_normal_times_equal_the_original(schedules, name, sampler):
    t = sampler.from_normal(schedules[f"sample_t.{name}.raw"], TINYFLUX)
    close(t, schedules[f"sample_t.{name}.t"])
    assert torch.equal(t.bfloat16().float(), schedules[f"sample_t.{name}.t_bf16"])


def test_uniform_and_stratified_times(schedules):
    uniform = timesteps.Uniform(shift=3.0, toward="data")
    t = uniform(schedules["sample_t.uniform.raw"], TINYFLUX)
    close(t, schedules["sample_t.uniform.t"])
    assert torch.equal(t.bfloat16().float(), schedules["sample_t.uniform.t_bf16"])
    stratified = timesteps.Stratified(uniform)(schedules["sample_t.stratified.raw"], TINYFLUX)
    close(stratified, schedules["sample_t.stratified.t"])


@pytest.mark.parametrize("steps", [1, 4, 20, 28, 50])
@pytest.mark.parametrize("shift", ["1.0", "3.0"])
def test_sampling_grid_equals_the_original(schedules, steps, shift):
    if (key := f"sampler_t.{steps}.{shift}") in schedules:
        close(grid(steps, TINYFLUX, float(shift), toward="data"), schedules[key])
    if (key := f"sampler_t_bf16.{steps}.{shift}") in schedules:
        coarse = shifts.flux_shift(
            torch.linspace(0, 1, steps + 1, dtype=torch.bfloat16), float(shift)
        )
        assert torch.equal(coarse.float(), schedules[key])


@pytest.mark.parametrize(
    "key, settings",
    [
        ("lr.constant", {"decay": "constant"}),
        ("lr.cosine", {"decay": "cosine"}),
        ("lr.linear", {"decay": "linear"}),
        ("lr.cosine_min0.1", {"decay": "cosine", "floor": 0.1}),
        ("lr.linear_min0.1", {"decay": "linear", "floor": 0.1, "floor_kind": "clip"}),
        ("trainer_lr.constant.linear_warmup", {"decay": "constant", "floor": 0.1}),
        ("trainer_lr.cosine.linear_warmup", {"decay": "cosine", "floor": 0.1}),
        (
            "trainer_lr.cosine.cosine_warmup",
            {"decay": "cosine", "floor": 0.1, "warmup_kind": "cosine"},
        ),
        ("trainer_lr.linear.linear_warmup", {"decay": "linear", "floor": 0.1}),
    ],
)
def test_learning_rates_equal_the_original(schedules, key, settings):
    rate = LearningRate(total_steps=10_000, warmup_steps=1000, **settings)
    rates = torch.tensor([rate(int(step)) for step in schedules["lr.steps"]], dtype=torch.float64)
    close(rates, schedules[key], 1e-9)


@pytest.mark.parametrize("key, ramp", [("w.lune", Ramp(0.1, 1000)), ("w.sol", Ramp(0.05, 2000))])
def test_loss_ramps(schedules, key, ramp):
    weights = torch.tensor([ramp(int(step)) for step in schedules["lr.steps"]], dtype=torch.float64)
    close(weights, schedules[key], 1e-9)


class Coefficients(VPPath):
    """A path with given alpha and sigma, the arguments of the originals' functions."""

    def __init__(self, alpha, sigma):
        super().__init__()
        vars(self).update(alpha=lambda t: alpha, sigma=lambda t: sigma)


def test_velocity_of_the_linear_path_and_back():
    f = fixture("tinyfluxfn_predictions")
    data, noise, t = f["data"], f["noise"], f["t"]
    close(TINYFLUX.interpolate(data, noise, t), f["flow_x_t"])
    close(prediction.target("velocity", data, noise, t, TINYFLUX), f["flow_velocity"])
    x0, recovered_noise = prediction.to_data_and_noise("velocity", f["other"], data, t, TINYFLUX)
    close(x0, f["flow_data_from_velocity"])
    close(recovered_noise, f["flow_noise_from_velocity"])


def test_v_and_epsilon_on_a_variance_preserving_path():
    f = fixture("tinyfluxfn_predictions")
    data, noise, other, t = f["data"], f["noise"], f["other"], f["t"]
    # the fixture holds alpha squared
    path = Coefficients(f["alpha"].sqrt(), (1 - f["alpha"]).sqrt())
    close(
        expand_like(path.alpha(t), data) * data + expand_like(path.sigma(t), noise) * noise,
        f["vpred_x_t"],
    )
    close(prediction.target("v", data, noise, t, path), f["vpred_velocity"])
    x0, recovered_noise = prediction.to_data_and_noise("v", other, data, t, path)
    close(x0, f["vpred_data_from_velocity"])
    close(recovered_noise, f["vpred_noise_from_velocity"])
    close(prediction.convert(other, data, t, path, "v", "epsilon"), f["vpred_to_eps"])
    close(
        prediction.to_data_and_noise("epsilon", other, data, t, path)[0], f["eps_data_from_noise"]
    )
    close(prediction.convert(other, data, t, path, "epsilon", "v"), f["eps_to_vpred"])


@pytest.fixture(scope="module")
def loss_case():
    f = fixture("tinyfluxfn_losses")
    for key in ("pred", "target"):  # tokens (B, 64, 16), row major
        f[key] = f[key].transpose(1, 2).reshape(4, 16, 8, 8)
    return f


def test_main_loss_and_its_weights(loss_case):
    f = loss_case
    error = losses.mse(f["pred"], f["target"])
    close(error.mean(), f["main.mse"])
    for delta in ("0.1", "1.0"):
        close(losses.huber(f["pred"], f["target"], float(delta)).mean(), f[f"main.huber{delta}"])
    elements = losses.huber(f["pred"], f["target"], 0.1).flatten(2).transpose(1, 2)
    close(elements, f["huber.elem0.1"])
    close(losses.masked_mean(error, f["mask"]).mean(), f["main.mse_mask"])
    close(
        losses.masked_mean(error, f["soft_mask"], 3.0, 0.25).mean(),
        f["main.mse_softmask_fg3_bg0.25"],
    )
    for side in (5, 8):
        weight = losses.spatial_weight(f[f"spatial{side}"], 8, 8)
        close((error * weight[:, None]).mean(), f[f"main.mse_spatial{side}"])
    weight = weighting.min_snr_literal(TINYFLUX.log_snr(f["t"]))
    close(weight, f["snr_w"])
    close((losses.sample_mean(error) * weight).mean(), f["main.mse_snr"])


def test_every_option_of_the_main_loss_together(loss_case):
    f = loss_case
    error = (
        losses.huber(f["pred"], f["target"], 0.1)
        * losses.spatial_weight(f["spatial5"], 8, 8)[:, None]
    )
    weight = weighting.min_snr_literal(TINYFLUX.log_snr(f["t"]))
    close((losses.masked_mean(error, f["mask"]) * weight).mean(), f["main.huber_all"])


@pytest.mark.parametrize("gamma", ["1.0", "5.0"])
def test_literal_min_snr(loss_case, gamma):
    close(
        weighting.min_snr_literal(TINYFLUX.log_snr(loss_case["snr.t"]), float(gamma)),
        loss_case[f"snr.w.{gamma}"],
    )


def test_distillation_losses_equal_the_original(loss_case):
    prediction_of_lune, target_of_lune = loss_case["lune.pred"], loss_case["lune.target"]
    close(losses.cosine(prediction_of_lune, target_of_lune).mean(), loss_case["lune.cosine"])
    close(losses.huber(prediction_of_lune, target_of_lune, 0.1).mean(), loss_case["lune.huber"])
    close(losses.mse(prediction_of_lune, target_of_lune).mean(), loss_case["lune.hard"])
    close(losses.mse(prediction_of_lune / 10, target_of_lune / 10).mean(), loss_case["lune.soft"])


def test_ema_equals_the_original():
    f = fixture("tinyfluxfn_ema")
    names = ["weight", "bias"]
    averages = [f[f"w0.{n}"].clone() for n in names]
    for step in (1, 2, 3):
        lerp_(averages, [f[f"w{step}.{n}"] for n in names], 0.9)
        for average, name in zip(averages, names, strict=True):
            close(average, f[f"ema{step}.{name}"])
