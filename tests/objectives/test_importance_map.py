"""Sol's map of importance weighs the loss, whatever else of the teacher is dropped."""

import torch

from tests.objectives.test_flow import NULL, Expert, Spy, make_batch
from tinyflux_pl.core.types import Batch
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.objectives.flow import FlowObjective


class Sol(Expert):
    name = "sol"

    def ports(self, buckets, t):
        return {"prior_map": buckets["sol.spatial"].mean(1)}

    def losses(self, heads, targets, present):
        return torch.tensor(0.0)


def test_the_importance_map_weights_the_loss_except_for_dropped_prompts():
    batch = make_batch(64, experts=False)
    corner = torch.zeros(64, 10, 2, 2)
    corner[:, :, 0, 0] = 1.0
    experts, present = {"sol.spatial": corner}, {"sol": torch.ones(64, dtype=torch.bool)}
    batch = Batch(**{**vars(batch), "experts": experts, "expert_present": present})
    spy = Spy()
    weighted = FlowObjective(Uniform(), NULL, [Sol()], text_dropout=0.5, map_weighting=True)
    plain = FlowObjective(Uniform(), NULL, [Sol()], text_dropout=0.5)
    draw = weighted.draw(spy, batch, 0)
    with_teacher = draw.cond.port_mask["prior_map"]
    _, moved = weighted.regress(spy, batch, draw)
    _, flat = plain.regress(spy, batch, draw)
    assert (
        torch.equal(moved[~with_teacher], flat[~with_teacher]) and 0 < int(with_teacher.sum()) < 64
    )
    velocity = (batch.latents - draw.noise).square().mean(1)
    share = torch.nn.functional.interpolate(corner[:, 0][:, None], (4, 4), mode="bilinear")[:, 0]
    expected = (velocity * share / share.mean((1, 2), keepdim=True)).mean((1, 2))
    assert torch.allclose(moved[with_teacher], expected[with_teacher], rtol=1e-4)


def test_the_importance_map_weight_is_independent_of_teacher_dropout():
    batch = make_batch(8, experts=False)
    corner = torch.zeros(8, 10, 2, 2)
    corner[:, :, 0, 0] = 1.0
    present = torch.arange(8) < 6  # a source without the expert has no map, whatever its zeros say
    batch = Batch(
        **{**vars(batch), "experts": {"sol.spatial": corner}, "expert_present": {"sol": present}}
    )
    errors = []
    for dropout in (0.0, 1.0):
        objective = FlowObjective(
            Uniform(), NULL, [Sol(dropout)], text_dropout=0.0, map_weighting=True
        )
        draw = objective.draw(Spy(), batch, 0)
        assert bool(draw.cond.port_mask["prior_map"].any()) == (dropout == 0)
        errors.append(objective.regress(Spy(), batch, draw)[1])
    flat = FlowObjective(Uniform(), NULL, [Sol()], text_dropout=0.0).regress(Spy(), batch, draw)[1]
    assert torch.equal(*errors)
    assert torch.equal(errors[1] == flat, ~present)
