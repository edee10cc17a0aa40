"""Prompts to images: what is encoded and how often; batch size does not change an image."""

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
    model = Gaussian(LinearPath(1), "velocity")
    model.latent_spec, model.text_spec = PixelFolding(2).latent_spec, TextSpec(8, 12, 8)
    model.register_parameter("device", nn.Parameter(torch.zeros(1)))
    return model


def sampler(max_batch=64, guidance=2.0):
    settings = SamplerSettings(steps=2, solver="euler", guidance=Guidance(guidance))
    return ImageSampler(PixelFolding(2), Counting(), settings, (8, 8), max_batch)


@pytest.mark.parametrize("negative", [None, "a cross"])
def test_an_image_does_not_depend_on_the_batch_size(denoiser, negative):
    prompts, options = (
        [RED, BLUE, BLUE, RED, RED],
        {"indices": [0, 0, 1, 1, 2], "seed": 3, "negative_prompt": negative},
    )
    joint = sampler().images(denoiser, prompts, **options)
    for size in (1, 2, 3):
        turns = list(sampler(size).batches(denoiser, prompts, **options))
        assert [len(turn) for turn in turns] == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2]}[size]
        torch.testing.assert_close(torch.cat(turns), joint, atol=1e-6, rtol=0)
    assert not torch.allclose(joint[0], joint[3])  # one prompt, two indices


def test_a_prompt_is_encoded_once_for_any_batch_size(denoiser):
    image_sampler = sampler(max_batch=1)
    image_sampler.images(denoiser, [RED, RED, BLUE, RED], negative_prompt="a cross")
    assert image_sampler.text.calls == [["a cross", RED, BLUE]]


def test_prompts_are_encoded_for_a_bounded_number_of_images_ahead(denoiser, monkeypatch):
    monkeypatch.setattr(images, "ENCODED", 2)
    image_sampler = sampler(guidance=1.0)
    image_sampler.images(denoiser, [RED, RED, BLUE, RED, BLUE])
    assert image_sampler.text.calls == [[RED], [BLUE, RED], [BLUE]]


def test_an_unused_negative_prompt_is_refused_before_encoding(denoiser):
    image_sampler = sampler(guidance=1.0)
    with pytest.raises(ConfigError, match=r"negative prompt does nothing"):
        image_sampler.images(denoiser, [RED], negative_prompt="a cross")
    assert not image_sampler.text.calls


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_scale_one_samples_the_prompt_without_guidance(denoiser, scale):
    image_sampler = sampler(guidance=scale)
    red, blue = image_sampler.images(denoiser, [RED, BLUE], indices=[0, 0])
    assert not torch.allclose(red, blue)
    assert torch.equal(red, sampler(guidance=1.0).images(denoiser, [RED])[0])


def test_the_configured_negative_prompt_is_the_default_unconditional(denoiser):
    settings = SamplerSettings(steps=2, solver="euler", guidance=Guidance(2.0, negative="a cross"))
    configured = ImageSampler(PixelFolding(2), Counting(), settings, (8, 8))
    explicit = sampler().images(denoiser, [RED], negative_prompt="a cross")
    assert torch.equal(configured.images(denoiser, [RED]), explicit)
    assert not torch.equal(configured.images(denoiser, [RED], negative_prompt="blue"), explicit)
    assert not torch.equal(sampler().images(denoiser, [RED]), explicit)


@pytest.mark.parametrize("stage", ["text embeddings", "latents", "picture"])
def test_a_nonfinite_value_names_its_stage(denoiser, stage, monkeypatch):
    image_sampler = sampler()
    image_sampler.finite = True
    image_sampler.images(denoiser, [RED])
    spoiled = {"text embeddings": (image_sampler.text, "encode"), "latents": (denoiser, "forward")}
    part, method = spoiled.get(stage, (image_sampler.codec, "decode"))
    sound = getattr(part, method)

    def not_finite(*args):
        answer = sound(*args)
        tensor = getattr(answer, "tokens", getattr(answer, "sample", answer))
        tensor.view(-1)[0] = float("nan")
        return answer

    monkeypatch.setattr(part, method, not_finite)
    with pytest.raises(NumericsError, match=f"the {stage}"):
        image_sampler.images(denoiser, [RED])
    image_sampler.finite = False
    image_sampler.images(denoiser, [RED])
