"""The loop: images depend on their ids and not on their batch, and land on the data."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Prediction, TextEmbeddings
from tinyflux_pl.denoisers.denoiser import DenoiserModule
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath, VPPath, expand_like
from tinyflux_pl.diffusion.prediction import to_data_and_noise
from tinyflux_pl.sampling.loop import SamplerSettings, evaluating, sample

SHAPE, STD = (2, 4, 4), 0.5
PLAIN = Guidance(1.0)


class Gaussian(DenoiserModule):
    """The exact denoiser of N(m, 0.5^2), m from the pooled text, with an additional Dropout."""

    name = "gaussian"
    latent_spec, text_spec = LatentSpec(2, 8), TextSpec(2, 8, 3)

    def __init__(self, path, prediction):
        super().__init__()
        self.path, self.prediction, self.dropout, self.rows = path, prediction, nn.Dropout(0.9), []

    def forward(self, x_t, t, cond):
        self.rows.append(len(x_t))
        assert t.dtype == torch.float32 and x_t.dtype == torch.float32
        a, s = expand_like(self.path.alpha(t), x_t), expand_like(self.path.sigma(t), x_t)
        mean = cond.text.pooled[:, :1, None, None]
        variance = a.square() * STD**2 + s.square()
        x0 = mean + a * STD**2 / variance * (x_t - a * mean)
        noise = s / variance * (x_t - a * mean)
        answers = {
            "velocity": lambda: self.path.velocity(x0, noise, t),
            "v": lambda: a * noise - s * x0,
            "epsilon": lambda: noise,
            "x0": lambda: x0,
        }
        return Prediction(self.dropout(torch.ones_like(x_t)) * answers[self.prediction]())


def prompt(*values):
    pooled = torch.tensor(values)[:, None].expand(-1, 3)
    return TextEmbeddings(
        torch.zeros(len(values), 4, 2), torch.ones(len(values), 4, dtype=torch.bool), pooled
    )


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize(
    "path, prediction",
    [
        (LinearPath(0), "velocity"),
        (LinearPath(0), "x0"),
        (LinearPath(1), "velocity"),
        (VPPath(), "v"),
        (VPPath(), "epsilon"),
        (VPPath(zero_terminal_snr=True), "v"),
    ],
)
def test_samples_have_mean_and_deviation_of_the_data(path, prediction, solver):
    settings = SamplerSettings(steps=40, solver=solver, guidance=PLAIN)
    out = sample(
        Gaussian(path, prediction),
        prompt(2.0),
        shape=SHAPE,
        sample_ids=range(200),
        seed=0,
        settings=settings,
        max_batch=200,
    )
    # Stable Diffusion's table starts at alpha 0.068, so pure noise is 0.14 below the marginal's
    # mean
    assert float(out.mean()) == pytest.approx(2.0, abs=0.08)
    assert float(out.std()) == pytest.approx(0.5, abs=0.06)
    assert out.dtype == torch.float32 and not out.is_inference()


def test_an_image_depends_on_its_id_and_not_on_its_batch():
    denoiser, ids = Gaussian(LinearPath(), "velocity"), [7, 3, 11, 2**62, 5]
    text = prompt(0.0, 1.0, 2.0, 3.0, 4.0)

    def draw(select, max_batch):
        return sample(
            denoiser,
            text.select(torch.tensor(select)),
            prompt(0.0),
            shape=SHAPE,
            sample_ids=[ids[i] for i in select],
            seed=1,
            settings=SamplerSettings(steps=4),
            max_batch=max_batch,
        )

    joint = draw([0, 1, 2, 3, 4], 5)
    torch.testing.assert_close(draw([0, 1, 2, 3, 4], 2), joint)
    torch.testing.assert_close(draw([3, 1], 1), joint[[3, 1]])


def test_samples_are_a_function_of_seed_and_stream():
    def draw(**changes):
        arguments = {"seed": 0, "stream": "sampling", **changes}
        return sample(
            Gaussian(LinearPath(), "velocity"),
            prompt(1.0),
            prompt(0.0),
            shape=SHAPE,
            sample_ids=[4],
            settings=SamplerSettings(steps=2),
            **arguments,
        )

    assert torch.equal(draw(), draw())
    assert not torch.equal(draw(), draw(seed=1)) and not torch.equal(draw(), draw(stream="preview"))


def test_sampling_starts_from_the_noise_of_its_seed_and_sample_id():
    """One Euler step of the exact x0 at pure noise gives the mean."""
    seen = []
    denoiser = Gaussian(LinearPath(), "velocity")
    denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    settings = SamplerSettings(steps=1, solver="euler", guidance=PLAIN)
    out = sample(denoiser, prompt(2.0), shape=SHAPE, sample_ids=[9], seed=3, settings=settings)
    assert torch.equal(seen[0], rng.normal(SHAPE, 3, "sampling", [9]))
    torch.testing.assert_close(out, torch.full_like(out, 2.0))


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("path", [LinearPath(0), VPPath()], ids=["linear", "vp"])
def test_sampling_never_synchronises_with_the_device(path, solver):
    """Values on the meta device cannot be read: any synchronisation would fail."""
    text, null = prompt(2.0).to("meta"), prompt(0.0).to("meta")
    guidance = Guidance(3.0, interval=(0.1, 0.9), curve="triangle")
    settings = SamplerSettings(steps=4, solver=solver, guidance=guidance)
    out = sample(
        Gaussian(path, "velocity"),
        text,
        null,
        shape=SHAPE,
        sample_ids=[1, 2, 3],
        seed=0,
        settings=settings,
        max_batch=2,
    )
    assert out.is_meta and out.shape == (3, *SHAPE)


def test_sampling_leaves_the_global_generators_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample(
        Gaussian(LinearPath(), "velocity"),
        prompt(1.0),
        prompt(0.0),
        shape=SHAPE,
        sample_ids=[1],
        seed=0,
    )
    assert torch.equal(before, torch.get_rng_state())


def test_training_modes_are_restored_after_an_error():
    denoiser = Gaussian(LinearPath(), "velocity")
    denoiser.dropout.eval()  # frozen on purpose
    with pytest.raises(RuntimeError, match="inside"), evaluating(denoiser):
        assert not denoiser.training
        raise RuntimeError("inside")
    assert denoiser.training and not denoiser.dropout.training


def test_progress_counts_every_step_of_every_batch():
    seen = []
    denoiser = Gaussian(LinearPath(), "velocity")
    settings = SamplerSettings(steps=3, solver="euler")
    sample(
        denoiser,
        prompt(1.0),
        prompt(0.0),
        shape=SHAPE,
        sample_ids=[1, 2, 3],
        seed=0,
        settings=settings,
        max_batch=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 6) for i in range(1, 7)]
    assert denoiser.rows == [4, 4, 4, 2, 2, 2]


def test_incompatible_inputs_are_refused():
    denoiser = Gaussian(LinearPath(), "velocity")
    common = {"sample_ids": [1, 2, 3], "seed": 0}
    with pytest.raises(SpecMismatch, match="channels"):
        sample(denoiser, prompt(1.0), prompt(0.0), shape=(3, 4, 4), **common)
    with pytest.raises(ConfigError, match="2 prompts for 3 images"):
        sample(denoiser, prompt(1.0, 2.0), prompt(0.0), shape=SHAPE, **common)
    with pytest.raises(ConfigError, match="null"):
        sample(denoiser, prompt(1.0), shape=SHAPE, **common)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"steps": 0}, "at least 1"),
        ({"solver": "rk4"}, "heun"),
        ({"shift": -1.0}, "positive"),
        ({"toward": "x"}, "data"),
    ],
)
def test_invalid_settings_are_refused_with_the_valid_values(settings, says):
    with pytest.raises(ConfigError, match=says):
        SamplerSettings(**settings)


@pytest.mark.parametrize(
    "path, evaluations", [(LinearPath(0), 5), (VPPath(), 6)], ids=["linear", "vp"]
)
def test_a_table_that_ends_before_data_is_completed_to_data(path, evaluations):
    """Stable Diffusion's last state has 3 percent noise: one more evaluation gives x0."""
    states, denoiser = [], Gaussian(path, "velocity")
    denoiser.register_forward_hook(
        lambda _, inputs, output: states.append((inputs[0], inputs[1], output.sample))
    )
    settings = SamplerSettings(steps=5, solver="euler", guidance=PLAIN)
    out = sample(denoiser, prompt(0.0), shape=SHAPE, sample_ids=[1, 2], seed=0, settings=settings)
    assert len(states) == evaluations
    if path.name == "vp":
        x0, _ = to_data_and_noise("velocity", states[-1][2], *states[-1][:2], path)
        torch.testing.assert_close(out, x0)
        assert not torch.equal(out, states[-1][0])
