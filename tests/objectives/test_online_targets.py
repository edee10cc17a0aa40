"""A teacher in the step: which samples it teaches, at which time and noise, on any path."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.denoisers.test_conformance import SMALL, example
from tests.objectives.test_flow import NULL, Spy, make_batch
from tinyflux_pl.core.types import Conditioning, Prediction
from tinyflux_pl.diffusion import prediction
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.online_targets import OnlineTargets
from tinyflux_pl.objectives.teacher_velocity import velocity


class Oracle(nn.Module):
    """Expects fixed data and noise in whatever it sees, in a prediction of its own."""

    def __init__(self, path, kind, data, noise):
        super().__init__()
        self.path, self.prediction, self.data, self.noise = path, kind, data, noise
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x_t, t, cond):
        self.seen.append((x_t, t, cond))
        data, noise = self.data[: len(x_t)], self.noise[: len(x_t)]
        return Prediction(prediction.target(self.prediction, data, noise, t, self.path))


def present(teacher):
    """A context with the teacher, which is there on any device."""
    return lambda device: nullcontext(teacher)


def objective_of(targets, text_dropout=0.0):
    return FlowObjective(Uniform(), NULL, text_dropout=text_dropout, velocity_targets=targets)


def oracle(batch, path=None, kind="velocity"):
    return Oracle(path or LinearPath(), kind, torch.ones_like(batch.latents), batch.latents * 0)


@pytest.mark.parametrize("path", [LinearPath(), LinearPath(noise_at=1), VPPath()])
@pytest.mark.parametrize("kind", ["velocity", "epsilon", "x0", "v"])
def test_the_velocity_is_that_of_the_students_path_for_any_teacher(path, kind):
    batch, spy = make_batch(64, experts=False), Spy()
    teacher = oracle(batch, path, kind)
    # what the teacher expects has to agree with what it sees, or no kind of prediction says both
    plain = objective_of(None).draw(spy, batch, 0)
    teacher.data, teacher.noise = batch.latents, plain.noise
    draw = objective_of(OnlineTargets(present(teacher))).draw(spy, batch, 0)
    expected = spy.path.velocity(batch.latents, plain.noise, plain.t)
    inside = (plain.t > 0.05) & (plain.t < 0.95)  # at the ends epsilon and x0 fade to 0
    assert torch.allclose(draw.teacher.velocity[inside], expected[inside], atol=2e-3)


def test_the_teacher_receives_the_noise_of_the_step_at_the_log_snr_of_the_student():
    batch, spy = make_batch(64, experts=False), Spy()
    teacher = oracle(batch, VPPath(), "v")
    plain = objective_of(None).draw(spy, batch, 7)
    draw = objective_of(OnlineTargets(present(teacher))).draw(spy, batch, 7)
    assert torch.equal(draw.t, plain.t) and torch.equal(draw.noise, plain.noise)
    ((x, tau, cond),) = teacher.seen
    assert torch.equal(x, teacher.path.interpolate(batch.latents, plain.noise, tau))
    snr = spy.path.log_snr(plain.t)
    inside = snr.abs() < 4  # both paths have such times
    assert torch.allclose(teacher.path.log_snr(tau)[inside], snr[inside], atol=1e-2)
    assert torch.equal(cond.text.tokens, batch.text.tokens) and not cond.ports


def test_dropped_prompts_and_samples_beyond_the_probability_keep_the_data():
    batch, spy = make_batch(256, experts=False), Spy()
    targets = OnlineTargets(present(oracle(batch)), probability=0.5)
    draw = objective_of(targets, text_dropout=0.5).draw(spy, batch, 0)
    used = draw.teacher.used
    assert not used[~draw.keep_text].any()
    assert 0.35 < float(used[draw.keep_text].float().mean()) < 0.65
    taught = objective_of(targets, text_dropout=0.5).regress(spy, batch, draw)[1]
    plain = objective_of(None, text_dropout=0.5)
    alone = plain.regress(spy, batch, plain.draw(spy, batch, 0))[1]
    assert torch.equal(taught[~used], alone[~used])
    assert not torch.isclose(taught[used], alone[used]).any()


def test_no_gradient_and_no_weight_of_the_teacher_enters_the_step():
    batch, spy = make_batch(8, experts=False), Spy()
    teacher = oracle(batch)
    draw = objective_of(OnlineTargets(present(teacher), weight=0.5, ramp_steps=4)).draw(
        spy, batch, 2
    )
    assert not draw.teacher.velocity.requires_grad and draw.teacher.weight == 0.25


def test_only_the_chosen_sources_are_taught():
    batch, spy = make_batch(8, experts=False), Spy()
    batch = replace(batch, dataset_ids=torch.arange(8) % 3)
    draw = objective_of(OnlineTargets(present(oracle(batch)), sources=[0, 2])).draw(spy, batch, 0)
    assert torch.equal(draw.teacher.used, batch.dataset_ids != 1)


class RowByRow(nn.Module):
    """Answers each row from that row alone."""

    path, prediction = LinearPath(), "velocity"

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(())), []

    def forward(self, x_t, t, cond):
        self.seen.append(len(x_t))
        text = cond.text.tokens.sum((1, 2)) + cond.text.pooled.sum(1)
        return Prediction(x_t.sin() + (t + text)[:, None, None, None])


def numbered(count):
    """A batch in which no two rows are alike."""
    batch = make_batch(count, experts=False)
    rows = torch.arange(float(count))
    text = replace(batch.text, tokens=batch.text.tokens * rows[:, None, None])
    return replace(batch, text=text, dataset_ids=torch.arange(count) % 3)


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_the_teacher_predicts_for_the_taught_rows_alone(fixed_shapes):
    """Bit for bit as for all rows, by a teacher whose rows do not depend on each other."""
    batch, spy = numbered(64), Spy()
    teacher = RowByRow()
    targets = OnlineTargets(present(teacher), 0.5, sources=[0, 2], fixed_shapes=fixed_shapes)
    draw = objective_of(targets, text_dropout=0.3).draw(spy, batch, 0)
    used = draw.teacher.used
    assert 0 < used.sum() < 64 and teacher.seen == [64 if fixed_shapes else int(used.sum())]
    cond = Conditioning(batch.text)
    expected = velocity(teacher, batch.latents, draw.noise, draw.t, spy.path, cond)
    assert torch.equal(draw.teacher.velocity[used], expected[used])
    x_t = spy.path.interpolate(batch.latents, draw.noise, draw.t)
    target = prediction.target("velocity", batch.latents, draw.noise, draw.t, spy.path)
    every = replace(draw.teacher, velocity=expected)
    mixed = [
        each.mixed(target, x_t, draw.t, spy.path, "velocity") for each in (draw.teacher, every)
    ]
    assert torch.equal(*mixed)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_networks_rows_differ_by_rounding_in_smaller_batches(dtype, tolerance):
    """A matrix product may sum in another order for another number of rows: not bit for bit."""
    teacher, spy = SMALL["tinyflux"]().to(dtype).eval(), Spy()
    x, _, cond = example(teacher)
    rows = torch.arange(len(x))
    batch = replace(make_batch(len(x), experts=False), latents=x, text=cond.text, dataset_ids=rows)
    draws = [
        objective_of(OnlineTargets(present(teacher), sources=chosen)).draw(spy, batch, 0)
        for chosen in (None, [0])
    ]
    every, first = (draw.teacher.velocity for draw in draws)
    torch.testing.assert_close(first[:1], every[:1], atol=tolerance, rtol=tolerance)
    assert not first[1:].any()


def test_the_teacher_does_not_run_where_no_row_is_taught():
    batch, teacher = numbered(6), RowByRow()
    draw = objective_of(OnlineTargets(present(teacher), sources=[7])).draw(Spy(), batch, 0)
    assert not teacher.seen and not draw.teacher.velocity.any() and not draw.teacher.used.any()
