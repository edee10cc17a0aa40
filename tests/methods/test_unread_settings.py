"""A setting that a method or an objective does not read is refused before time is spent."""

import pytest
import torch
from PIL import Image

from tests.app.runs import SMALLEST, SMALLEST_AUTOENCODER, photographs, run, settings
from tests.methods.test_lora_runs import QUIET
from tinyflux_pl.app import unread_settings
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.diffusion.timesteps import LogitNormal
from tinyflux_pl.methods.textual_inversion import TextualInversion
from tinyflux_pl.objectives.prior import PriorPreservation
from tinyflux_pl.objectives.word_inversion import WordInversion

PRIOR = "tinyflux_pl.objectives.prior.PriorPreservation"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of one step."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, "run=base", "steps=1")
    return project


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("method=few_step", "timesteps=uniform"), "does not read timesteps: the student learns"),
        (("method=few_step", "timesteps.mean=1.0"), r"does not read timesteps\.mean"),
        (("method=few_step", "objective.text_dropout=0.5"), "does not read objective.text_dropout"),
        (("method=few_step", "objective.foreground=3.0"), "does not read objective.foreground"),
        (("method=few_step", "objective.weighting=min_snr"), "does not read objective.weighting"),
        (("method=few_step", f"objective._target_={PRIOR}"), "PriorPreservation"),
        (("method=few_step", "experts=lune"), "not what experts cached"),
        (("method=few_step", "+method.rank=4"), "rank"),
        (("objective.huber_delta=0.3",), "huber_delta: the error is mse"),
        (("objective.min_snr_gamma=3.0",), "min_snr_gamma: the weighting is uniform"),
        (("objective.map_weighting=true",), "no teacher here has importance maps"),
    ],
)
def test_unread_keys_are_refused_before_anything_is_written(root, tmp_path, words, reason):
    start = (f"init='{root}/outputs/base'",)
    with pytest.raises(ConfigError, match=reason) as caught:
        run("train", tmp_path, *SMALLEST, *QUIET, *start, *words, "run=none")
    assert len(str(caught.value).splitlines()) == 3
    assert list(tmp_path.iterdir()) == []


def test_encoders_that_learn_a_word_do_not_take_turns(tmp_path):
    config = settings("train", tmp_path).replace(overrides=["text.sequential=true"])
    with pytest.raises(ConfigError, match="stay in memory"):
        unread_settings.check(config, TextualInversion("zorp"), {})


def test_an_autoencoder_refuses_times_and_samplers(tmp_path):
    for key in ("timesteps=uniform", "sampler.steps=4", "guidance.scale=2.0"):
        with pytest.raises(ConfigError, match="an autoencoder has no times"):
            run("train", tmp_path, *SMALLEST_AUTOENCODER, key)


def test_keys_that_are_read_are_accepted(tmp_path):
    words = ("objective.error=huber", "objective.huber_delta=0.3", "steps=1", "run=huber")
    run("train", tmp_path, *SMALLEST, *QUIET, "timesteps=uniform", *words)


def test_masks_of_pictures_are_refused_by_distillation(root, tmp_path):
    photos = photographs(tmp_path / "photos", ("chelsea", "coffee"), side=32)
    words = (*SMALLEST, *QUIET, "data=folder", f"data.root='{photos}'", "data.image_size=32")
    with pytest.raises(ConfigError, match="the pictures have no masks"):
        run("train", tmp_path, *words, "objective.foreground=3.0", "run=bare")
    for file in [*photos.glob("*.png"), *photos.glob("*.jpg")]:
        with Image.open(file) as picture:
            Image.new("L", picture.size, 255).save(file.with_suffix(".mask.png"))
    start = (f"init='{root}/outputs/base'", "method=few_step")
    with pytest.raises(ConfigError, match="does not read masks"):
        run("train", tmp_path, *words, *start, "run=masked")
    assert not list(tmp_path.rglob("*.safetensors"))


class Constant(torch.nn.Module):
    """A network that answers a learnt number."""

    patch_size, prediction, ports = 1, "velocity", ()

    def __init__(self, path):
        super().__init__()
        self.path, self.number = path, torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t, t, cond):
        from tinyflux_pl.core.types import Prediction

        return Prediction(self.number.expand_as(x_t))


def subject_and_class(path):
    """A prior objective, the one of a word around it, a network and a batch of both sources."""
    text = TextEmbeddings(
        torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4)
    )
    ids = torch.tensor([11, 12])
    batch = Batch(torch.ones(2, 4, 2, 2), text, ids, torch.tensor([0, 1]), ["a", "b"])
    prior = PriorPreservation(LogitNormal(), text.select(torch.tensor([0])), prior_weight=3.0)

    class Reader:
        words = ()

        def to(self, device):
            return self

        def encode(self, captions):
            return text

    return prior, WordInversion(prior, Reader()), Constant(path), batch


def test_a_word_learns_by_the_run_s_own_terms():
    from tinyflux_pl.diffusion.paths import LinearPath

    prior, inversion, network, batch = subject_and_class(LinearPath())
    terms, expected = inversion.loss(network, batch, 0), prior.loss(network, batch, 0)
    assert terms.keys() == expected.keys() == {"flow", "prior"}
    torch.testing.assert_close(terms["prior"], expected["prior"])


def test_terms_of_each_sample_sum_to_those_of_the_batch():
    from tinyflux_pl.diffusion.paths import LinearPath

    prior, _, network, batch = subject_and_class(LinearPath())
    terms, samples = prior.loss(network, batch, 0), prior.by_sample(network, batch, 0)
    assert samples[11].keys() == {"flow"} and samples[12].keys() == {"prior"}
    assert samples[12]["prior"] / 2 == pytest.approx(terms["prior"].item())
