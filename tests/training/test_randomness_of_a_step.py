"""Every draw of a step depends on the step; otherwise it would repeat every epoch."""

import functools

import pytest
import torch
from torch import nn

from tests.objectives.test_flow import NULL, Expert, Spy, make_batch
from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Prediction
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.optimizers import adamw

STREAMS = {
    "times": lambda draw: draw.t,
    "noise": lambda draw: draw.noise,
    "text dropout": lambda draw: draw.cond.text.pooled[:, 0] == -7.0,
    "expert dropout": lambda draw: draw.cond.port_mask["vec"],
}


@pytest.mark.parametrize("stream", STREAMS)
def test_every_random_stream_differs_between_steps(stream):
    text_dropout = 0.5 if stream == "text dropout" else 0.0
    objective = FlowObjective(Uniform(), NULL, [Expert(0.5)], text_dropout=text_dropout)
    one, again, later = (
        STREAMS[stream](objective.draw(Spy(), make_batch(), step)) for step in (3, 3, 4)
    )
    assert torch.equal(one, again) and not torch.equal(one, later)


def test_every_draw_of_a_step_is_keyed_by_the_step(monkeypatch):
    """A stream that is added later has to pass here as well."""
    draws = []
    for kind in ("uniform", "normal"):
        draw = getattr(rng, kind)

        def noted(*args, _draw=draw, **named):
            value = _draw(*args, **named)
            draws.append((next(word for word in args if isinstance(word, str)), value))
            return value

        monkeypatch.setattr(rng, kind, noted)
    objective = FlowObjective(Uniform(), NULL, [Expert(0.5)], text_dropout=0.5)
    by_step = []
    for step in (7, 8):
        draws.clear()
        objective.draw(Spy(), make_batch(), step)
        by_step.append(dict(draws))
    assert set(by_step[0]) == {"t", "noise", "text_dropout", "expert_dropout/lune"}
    assert not [name for name, value in by_step[0].items() if torch.equal(value, by_step[1][name])]


class Dropping(nn.Module):
    """A denoiser that is all dropout."""

    name, path, prediction, patch_size = "dropping", Spy().path, "velocity", 1

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x_t, t, cond):
        self.seen.append(nn.functional.dropout(torch.ones(64), 0.5))
        return Prediction(self.weight * torch.zeros_like(x_t))


def test_dropout_in_a_network_is_a_function_of_seed_sample_and_step():
    net = Dropping()

    def mask(step, first=1000, seed=0):
        objective = FlowObjective(Uniform(), NULL, seed=seed)
        module = FlowModule(
            net, objective, functools.partial(adamw), lambda step: 1.0, start_step=step
        )
        batch = make_batch(4, experts=False)
        batch.sample_ids[0] = first
        module.training_step(batch, 0)
        return net.seen[-1]

    assert torch.equal(mask(3), mask(3))
    other_masks = (mask(4), mask(3, first=2000), mask(3, seed=1))
    assert not any(torch.equal(mask(3), other) for other in other_masks)
