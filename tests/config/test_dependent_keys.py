"""Keys that another key has to switch on are refused without it, in every script."""

from dataclasses import asdict

import pytest

from tests.app.runs import settings
from tinyflux_pl.app import unread_settings
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.config import dependent_keys
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.loop import SamplerSettings

UNREAD = [
    ({"eta": 0.5}, "kind is cfg"),
    ({"norm_limit": 2.0}, "kind is cfg"),
    ({"momentum": -0.5, "kind": "cfg_zero"}, "kind is cfg_zero"),
    ({"zero_until": 0.1, "kind": "apg"}, "kind is apg"),
    ({"peak": 0.2}, "curve is constant"),
    ({"threshold_bound": 2.0}, "threshold is 0.0"),
    ({"skip_scale": 1.0}, r"skip_layers is \(\)"),
    ({"skip_interval": (0.1, 0.5)}, r"skip_layers is \(\)"),
    ({"curve": "cosine", "scale": 0.0}, "scale is 1.0"),
    ({"interval": (0.2, 0.5), "scale": 1.0}, "scale is 1.0"),
    ({"negative": "blurred", "scale": 1.0}, "scale is 1.0"),
]


@pytest.mark.parametrize(("values", "why"), UNREAD)
def test_a_key_of_guidance_that_another_one_switches_off_is_refused(values, why):
    name = next(iter(values))
    guidance = asdict(Guidance(**values))
    with pytest.raises(ConfigError, match=f"nothing reads guidance.{name} where guidance.{why}"):
        dependent_keys.check([f"guidance.{name}=x"], "guidance", guidance, asdict(Guidance()))
    dependent_keys.check(["guidance=x"], "guidance", guidance, asdict(Guidance()))  # a group's own


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cache.threshold=0.5", "cache.threshold where cache.kind is none"),
        ("cache.longest=1", "cache.longest where cache.kind is none"),
        ("engine.balance=ptq4dit", "engine.balance where engine.calibrate is None"),
        ("guidance.eta=0.5", "guidance.eta where guidance.kind is cfg"),
        ("sampler.offset=0", "sampler.offset where sampler.spacing is even"),
    ],
)
def test_drawing_refuses_it_before_weights_are_built(line, says, tmp_path):
    words = ["model=sdxl", "model.random_weights=true", "prompt=red", "sampler=euler", line]
    with pytest.raises(ConfigError, match=f"nothing reads {says}"):
        pipeline(settings("generate", tmp_path, *words))


def test_training_refuses_it_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match=r"guidance\.eta where guidance\.kind is cfg"):
        Parts.from_config(settings("train", tmp_path, "model=tiny", "guidance.eta=0.5")).check()


def test_keys_of_a_picture_that_is_drawn_again_are_not_judged(tmp_path):
    line = ("model=sdxl", "sampler=euler", "guidance=cfg", "guidance.eta=0.5", "cache.longest=1")
    config = settings("generate", tmp_path, *line, "prompt=red").replace(from_image="a.png")
    unread_settings.check_sampling(config, SamplerSettings(guidance=Guidance(eta=0.5)))
    unread_settings.check_drawing(config)


def test_a_default_that_is_written_out_passes():
    for values in (Guidance(scale=1.0), Guidance(scale=3.0, kind="apg", eta=0.5)):
        set_keys = [f"guidance.{key}=x" for key in ("kind", "eta", "peak", "skip_scale")]
        dependent_keys.check(set_keys, "guidance", asdict(values), asdict(Guidance()))
