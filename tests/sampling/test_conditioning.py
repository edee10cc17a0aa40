"""Conditioning passed by the sampling loop: guidance input, images, sizes, dynamic shift."""

import math

import pytest
import torch

from tests.sampling.test_loop import PLAIN, SHAPE, Gaussian, prompt
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.shifts import resolution_shift
from tinyflux_pl.sampling.loop import SamplerSettings, sample


class Listening(Gaussian):
    """Records its conditioning row by row."""

    reads_guidance, patch_size = True, 2

    def __init__(self):
        super().__init__(LinearPath(1), "velocity")
        self.conditions, self.times = [], []

    def forward(self, x_t, t, cond):
        self.conditions.append(cond)
        self.times.append(float(t[0]))
        return super().forward(x_t, t, cond)


def drawn(denoiser, text, null=None, ids=(0, 1, 2), max_batch=2, **settings):
    chosen = SamplerSettings(steps=2, solver="euler", **{"guidance": PLAIN, **settings})
    return sample(
        denoiser,
        text,
        null,
        shape=SHAPE,
        sample_ids=ids,
        seed=0,
        settings=chosen,
        max_batch=max_batch,
    )


def test_conditioning_is_split_by_rows_and_a_single_row_is_broadcast():
    denoiser = Listening()
    pictures = (
        torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 2, 4, 4),
        torch.full((1, 2, 2, 2), 9.0),
    )
    conditioning = Conditioning(
        prompt(0.0, 1.0, 2.0),
        references=pictures,
        inpaint=torch.ones(1, 6, 4, 4),
        size_ids=torch.eye(6)[:3],
    )
    drawn(denoiser, conditioning)
    first, last = denoiser.conditions[0], denoiser.conditions[-1]
    assert first.references[0][:, 0, 0, 0].tolist() == [0, 1] and last.references[0][
        :, 0, 0, 0
    ].tolist() == [2]
    assert len(first.references[1]) == 2 and len(last.references[1]) == 1 and len(last.inpaint) == 1
    assert last.size_ids.tolist() == [[0, 0, 1, 0, 0, 0]] and last.text.pooled[:, 0].tolist() == [2]


def test_the_unconditional_receives_the_same_images_and_the_null_text():
    denoiser = Listening()
    conditioning = Conditioning(
        prompt(1.0),
        references=(torch.ones(1, 2, 4, 4),),
        inpaint=torch.full((1, 6, 4, 4), 2.0),
        size_ids=torch.ones(1, 6),
    )
    drawn(denoiser, conditioning, prompt(0.0), ids=(0,), guidance=Guidance(3.0, embedded=2.5))
    both = denoiser.conditions[0]
    assert both.text.pooled[:, 0].tolist() == [1, 0] and both.embedded_guidance.tolist() == [
        2.5,
        2.5,
    ]
    for part in (both.references[0], both.inpaint, both.size_ids):
        assert len(part) == 2 and torch.equal(part[0], part[1])


def test_embedded_guidance_is_passed_only_to_networks_that_read_it():
    denoiser = Listening()
    drawn(denoiser, prompt(1.0), guidance=Guidance(1.0, embedded=3.5))
    assert denoiser.conditions[0].embedded_guidance.tolist() == [3.5, 3.5]
    drawn(denoiser, prompt(1.0))
    assert denoiser.conditions[-1].embedded_guidance is None
    with pytest.raises(ConfigError, match="no guidance input"):
        drawn(
            Gaussian(LinearPath(1), "velocity"), prompt(1.0), guidance=Guidance(1.0, embedded=3.5)
        )


def test_a_dynamic_shift_counts_the_image_tokens():
    denoiser = Listening()
    drawn(denoiser, prompt(1.0), ids=(0,), shift="flux1")
    shift = resolution_shift(4)  # 4 x 4 cells in patches of 2 x 2
    assert denoiser.times == pytest.approx([1.0, shift * 0.5 / (1 + (shift - 1) * 0.5)])
    assert math.log(resolution_shift(256)) == pytest.approx(0.5) and math.log(
        resolution_shift(4096)
    ) == pytest.approx(1.15)
    with pytest.raises(ConfigError, match="flux1"):
        SamplerSettings(shift="flux")


def test_a_number_of_references_that_fits_no_batch_is_refused():
    with pytest.raises(ConfigError, match="2 prompts for 3 images"):
        drawn(Listening(), Conditioning(prompt(0.0), references=(torch.ones(2, 2, 4, 4),)))
