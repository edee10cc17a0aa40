"""A sampled sequence does not depend on its padding or on its batch."""

import pytest
import torch

from tests.denoisers.test_flux_core import denoiser
from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.sampling.loop import SamplerSettings, sample

WIDTH, LONGEST, WORDS = 4, 24, 7
NULL = TextEmbeddings(torch.zeros(1, 1, 8), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 2))


def conditions(lengths):
    """One sample per (target, condition) length, all padded, with noise in the padding."""
    generator = torch.Generator().manual_seed(0)
    many = len(lengths)
    mask, words = (
        torch.zeros(many, LONGEST, dtype=torch.bool),
        torch.zeros(many, WORDS, dtype=torch.bool),
    )
    for row, (target, text_length) in enumerate(lengths):
        mask[row, torch.randperm(LONGEST, generator=generator)[:target]] = True
        words[row, :text_length] = True
    tokens = torch.randn(many, WORDS, 8, generator=generator)
    text = TextEmbeddings(tokens, words, torch.randn(many, 2, generator=generator))
    return Conditioning(
        text, target_ids=torch.randn(many, LONGEST, 3, generator=generator), target_mask=mask
    )


def drawn(cond, ids, scale, solver="heun"):
    settings = SamplerSettings(steps=3, solver=solver, guidance=Guidance(scale=scale))
    shape = (WIDTH, cond.target_ids.shape[1], 1)
    return sample(denoiser(), cond, NULL, shape=shape, sample_ids=ids, seed=5, settings=settings)


@pytest.mark.parametrize(("scale", "solver"), [(1.0, "heun"), (2.5, "euler"), (2.5, "dpmpp_2m")])
def test_a_sample_is_equal_padded_and_unpadded(scale, solver):
    cond = conditions([(LONGEST, WORDS), (19, 2), (5, 4), (1, 1)])
    both = drawn(cond, [3, 4, 5, 4], scale, solver)
    for row, i in enumerate([3, 4, 5, 4]):
        real, text_mask = cond.target_mask[row], cond.text.mask[row]
        text = TextEmbeddings(
            cond.text.tokens[row : row + 1, text_mask],
            text_mask[None, text_mask],
            cond.text.pooled[row : row + 1],
        )
        alone = drawn(
            Conditioning(text, target_ids=cond.target_ids[row : row + 1, real]), [i], scale, solver
        )
        torch.testing.assert_close(both[row][:, real], alone[0], rtol=1e-4, atol=1e-4)
        assert (both[row][:, ~real] == 0).all()


def test_an_unpadded_target_starts_from_the_noise_of_its_id():
    seen = []
    model = denoiser()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    cond = conditions([(LONGEST, 3)])
    settings = SamplerSettings(steps=1, solver="euler", guidance=Guidance(scale=1.0))
    sample(model, cond, shape=(WIDTH, LONGEST, 1), sample_ids=[9], seed=5, settings=settings)
    assert torch.equal(seen[0], rng.normal((WIDTH, LONGEST, 1), 5, "sampling", [9]))
