"""The embedded teachers are complete and small, and follow prompts when sampled alone."""

import json

import pytest

from tinyflux_pl.core.files import sha256
from tinyflux_pl.data.tasks.digits.records import Digits
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.experts.teacher import ASSETS, embedded
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings

NAMES = ("lune", "sol")


def test_embedded_teachers_are_small_and_record_their_hash_and_recipe():
    assert sum((ASSETS / f"{name}.safetensors").stat().st_size for name in NAMES) < 8e6
    for name in NAMES:
        content = json.loads((ASSETS / f"{name}.json").read_text())
        assert content["sha256"] == sha256(ASSETS / f"{name}.safetensors")
        assert content["recipe"]["seed"] == 0 and content["recipe"]["steps"] > 0


def test_one_is_a_flow_teacher_and_one_predicts_v():
    lune, sol = (embedded(name).denoiser for name in NAMES)
    assert (lune.path.name, lune.prediction, lune.path.t_noise) == ("linear", "velocity", 1.0)
    assert (sol.path.name, sol.prediction, sol.path.t_noise) == ("vp", "v", 1.0)


@pytest.mark.parametrize(
    ("name", "records", "splits"),
    [
        ("lune", Shapes(count=1), ("train", "held_out")),
        ("sol", Shapes(count=1), ("train", "held_out")),
        ("lune", Digits(count=1), ("train",)),
    ],
    ids=["lune shapes", "sol shapes", "lune digits"],
)
def test_images_sampled_from_a_teacher_match_their_prompts(name, records, splits):
    teacher = embedded(name)
    settings = SamplerSettings(steps=16, solver="euler", guidance=Guidance(scale=3.0))
    sampler = ImageSampler(teacher.codec, teacher.text, settings, (32, 32))
    metric = PromptAccuracy(records.verifier())
    for split in splits:
        prompts = records.prompts(40 // len(splits), split, seed=3)
        metric.update(sampler.images(teacher.denoiser, prompts, seed=5), prompts)
    # docs/experiments.md has more prompts; of these 40, two may be wrong
    assert round(40 * float(metric.compute()["all"])) >= 38


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_draws_relations_and_counts(name):
    """Guidance 1.5: at 3 fewer pictures show their number of objects."""
    teacher, records = embedded(name), Scenes(count=1)
    settings = SamplerSettings(steps=16, solver="euler", guidance=Guidance(scale=1.5))
    sampler = ImageSampler(teacher.codec, teacher.text, settings, (48, 48))
    metric = PromptAccuracy(records.verifier())
    for split in ("train", "held_out"):
        prompts = records.prompts(16, split, seed=3)
        metric.update(sampler.images(teacher.denoiser, prompts, seed=5), prompts)
    assert float(metric.compute()["all"]) >= 0.85
