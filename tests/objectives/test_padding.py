"""Padding of a target is neither learned from nor validated with."""

import pytest
import torch

from tinyflux_pl.core.types import Batch, Prediction, TextEmbeddings
from tinyflux_pl.diffusion.losses import unpadded_mean
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.validation import FixedGrid

TEXT = TextEmbeddings(torch.ones(3, 2, 4), torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 4))
MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [True] * 4 + [False]])


class Wrong:
    """An exact denoiser plus `error`, added in padding or outside of it."""

    name, prediction, path, patch_size = "wrong", "velocity", LinearPath(noise_at=1), 1

    def __init__(self, batch, where):
        self.batch, self.where = batch, where

    def __call__(self, x_t, t, cond):
        assert torch.equal(cond.target_mask, MASK) and cond.target_ids is self.batch.target_ids
        shares = t[:, None, None, None]
        noise = (x_t - (1 - shares) * self.batch.latents) / shares
        return Prediction(noise - self.batch.latents + 3.0 * self.where[:, None, :, None])


def batch():
    fields = {
        "sample_ids": torch.arange(3),
        "dataset_ids": torch.zeros(3, dtype=torch.long),
        "captions": ["x"] * 3,
    }
    ids = torch.randn(3, 5, 3)
    return Batch(torch.randn(3, 2, 5, 1), TEXT, **fields, target_ids=ids, target_mask=MASK)


@pytest.mark.parametrize(("where", "loss"), [(~MASK, 0.0), (MASK, 9.0)])
def test_training_and_validation_losses_ignore_padding_tokens(where, loss):
    padded = batch()
    objective = FlowObjective(Uniform(), TEXT.select(slice(0, 1)), text_dropout=0.0)
    training_loss = objective.loss(Wrong(padded, where), padded, 0)["flow"]
    assert float(training_loss) == pytest.approx(loss, abs=1e-3)
    errors = FixedGrid((0.1, 0.5)).errors(Wrong(padded, where), padded)
    assert float(errors["validation/loss"]) == pytest.approx(loss, abs=1e-3)


def test_a_per_sample_mean_does_not_depend_on_padding():
    error = torch.rand(3, 2, 5, 1)
    training_loss = unpadded_mean(error, MASK)
    assert training_loss[1] == pytest.approx(float(error[1, :, :2].mean()))
    assert torch.allclose(
        unpadded_mean(error, torch.ones(3, 5, dtype=torch.bool)), error.mean((1, 2, 3))
    )
    assert torch.equal(unpadded_mean(error, None), error.flatten(1).mean(1))


class Reader(Wrong):
    """A denoiser that returns the mean of its unmasked tokens and records their number."""

    def __init__(self):
        self.widths = []

    def __call__(self, x_t, t, cond):
        words, mask = cond.text.tokens, cond.text.mask[..., None]
        self.widths.append(words.shape[1])
        mean = (words * mask).sum(1) / mask.sum(1)
        return Prediction(x_t + mean.mean(1)[:, None, None, None])


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_padding_of_the_null_text_lengthens_no_batch_and_changes_no_loss(dropout):
    real = TextEmbeddings(
        torch.randn(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), torch.randn(1, 4)
    )
    padded, reader = batch(), Reader()
    objective = FlowObjective(Uniform(), real.padded(24), text_dropout=dropout)
    training_loss = objective.loss(reader, padded, 0)["flow"]
    objective._null = real.padded(24)
    assert torch.equal(training_loss, objective.loss(reader, padded, 0)["flow"])
    assert reader.widths == [2, 24 if dropout else 2]
