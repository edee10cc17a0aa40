"""Prompts to images: what is encoded, how often, and that neither batch nor repetition changes a
picture.
"""

import pytest
import torch
from torch import nn

from tests.sampling.test_loop import Gaussian
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.sampling import images
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.text.hashed_words import HashedWords

RED, BLUE = "a red circle", "a small blue square, top left"


class Counting(HashedWords):
    """Remembers the prompts of each call."""

    def __init__(self):
        super().__init__(8, 12)
        self.calls = []

    def encode(self, prompts):
        self.calls.append(list(prompts))
        return super().encode(prompts)


@pytest.fixture
def denoiser():
    made = Gaussian(LinearPath(1), "velocity")
    made.latent_spec, made.text_spec = PixelFolding(2).latent_spec, TextSpec(8, 12, 8)
    made.register_parameter("device", nn.Parameter(torch.zeros(1)))
    return made


def sampler(max_batch=64, guidance=2.0):
    settings = SamplerSettings(steps=2, solver="euler", guidance=Guidance(guidance))
    return ImageSampler(PixelFolding(2), Counting(), settings, (8, 8), max_batch)


@pytest.mark.parametrize("negative", [None, "a cross"])
def test_a_picture_does_not_depend_on_how_many_are_drawn_at_once(denoiser, negative):
    prompts, options = (
        [RED, BLUE, BLUE, RED, RED],
        {"indices": [0, 0, 1, 1, 2], "seed": 3, "negative_prompt": negative},
    )
    whole = sampler().images(denoiser, prompts, **options)
    for size in (1, 2, 3):
        turns = list(sampler(size).batches(denoiser, prompts, **options))
        assert [len(turn) for turn in turns] == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2]}[size]
        torch.testing.assert_close(torch.cat(turns), whole, atol=1e-6, rtol=0)
    assert not torch.allclose(whole[0], whole[3])  # one prompt, two indices


def test_a_prompt_is_encoded_once_however_few_are_drawn_at_once(denoiser):
    made = sampler(max_batch=1)
    made.images(denoiser, [RED, RED, BLUE, RED], negative_prompt="a cross")
    assert made.text.calls == [["a cross", RED, BLUE]]


def test_prompts_are_encoded_for_a_bounded_number_of_images_ahead(denoiser, monkeypatch):
    monkeypatch.setattr(images, "ENCODED", 2)
    made = sampler(guidance=1.0)
    made.images(denoiser, [RED, RED, BLUE, RED, BLUE])
    assert made.text.calls == [[RED], [BLUE, RED], [BLUE]]


def test_a_negative_prompt_that_nothing_reads_is_refused_before_anything_is_encoded(denoiser):
    made = sampler(guidance=1.0)
    with pytest.raises(ConfigError, match=r"negative prompt does nothing"):
        made.images(denoiser, [RED], negative_prompt="a cross")
    assert not made.text.calls


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_no_guidance_draws_the_prompt(denoiser, scale):
    made = sampler(guidance=scale)
    red, blue = made.images(denoiser, [RED, BLUE], indices=[0, 0])
    assert not torch.allclose(red, blue)
    assert torch.equal(red, sampler(guidance=1.0).images(denoiser, [RED])[0])


def test_the_settings_own_negative_prompt_is_the_unconditional_unless_another_is_given(denoiser):
    settings = SamplerSettings(steps=2, solver="euler", guidance=Guidance(2.0, negative="a cross"))
    own = ImageSampler(PixelFolding(2), Counting(), settings, (8, 8))
    asked = sampler().images(denoiser, [RED], negative_prompt="a cross")
    assert torch.equal(own.images(denoiser, [RED]), asked)
    assert not torch.equal(own.images(denoiser, [RED], negative_prompt="blue"), asked)
    assert not torch.equal(sampler().images(denoiser, [RED]), asked)


@pytest.mark.parametrize("stage", ["text embeddings", "latents", "picture"])
def test_a_value_that_is_not_finite_names_the_stage(denoiser, stage, monkeypatch):
    made = sampler()
    made.finite = True
    made.images(denoiser, [RED])
    spoiled = {"text embeddings": (made.text, "encode"), "latents": (denoiser, "forward")}
    part, method = spoiled.get(stage, (made.codec, "decode"))
    sound = getattr(part, method)

    def not_finite(*given):
        answer = sound(*given)
        tensor = getattr(answer, "tokens", getattr(answer, "sample", answer))
        tensor.view(-1)[0] = float("nan")
        return answer

    monkeypatch.setattr(part, method, not_finite)
    with pytest.raises(NumericsError, match=f"the {stage}"):
        made.images(denoiser, [RED])
    made.finite = False
    made.images(denoiser, [RED])
