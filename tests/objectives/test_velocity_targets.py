"""Teachers' velocities as targets: which samples have them, how much, and while they help."""

import pytest
import torch

from tests.objectives.test_flow import NULL, Spy, make_batch, select
from tests.pretended_gpu import PretendedGPU
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.types import Batch, Prediction
from tinyflux_pl.diffusion import prediction
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.experts.velocity import Velocity
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.teacher_errors import bucket_errors
from tinyflux_pl.objectives.velocity_targets import VelocityTargets

BUCKETS = (0.1, 0.5, 0.9)
LUNE, SOL = Velocity("lune", BUCKETS, seed=3), Velocity("sol", BUCKETS, seed=3)


def batch_with(values, present=None, n=64):
    """Teacher's name -> the constant that all its velocities are."""
    batch = make_batch(n, experts=False)
    arrays = {f"{k}_velocity.velocity": torch.full((n, 3, 2, 4, 4), v) for k, v in values.items()}
    there = {f"{k}_velocity": torch.ones(n, dtype=torch.bool) for k in values}
    there |= {f"{k}_velocity": rows for k, rows in (present or {}).items()}
    return Batch(**{**vars(batch), "experts": arrays, "expert_present": there})


def objective_of(targets, text_dropout=0.0, **options):
    return FlowObjective(
        Uniform(), NULL, text_dropout=text_dropout, velocity_targets=targets, **options
    )


def always(*experts, **options):
    return VelocityTargets(experts, **{"probability": 1.0, "ramp_steps": 0, **options})


def test_a_sample_moves_to_its_nearest_bucket_and_to_the_extraction_s_noise():
    batch, spy = batch_with({"lune": 1.0}), Spy()
    plain = objective_of(None).draw(spy, batch, 0)
    draw = objective_of(always(LUNE)).draw(spy, batch, 0)
    nearest = (plain.t[:, None] - torch.tensor(BUCKETS)).abs().argmin(1)
    assert draw.teacher.used.all()
    assert torch.equal(draw.t, torch.tensor(BUCKETS)[nearest])
    noise = LUNE.noise((2, 4, 4), batch.sample_ids.tolist(), nearest.tolist())
    assert torch.equal(draw.noise, noise)


def test_the_share_of_moved_samples_is_the_probability_and_the_others_are_as_without():
    batch, spy = batch_with({"lune": 1.0}, n=512), Spy()
    plain = objective_of(None).draw(spy, batch, 5)
    draw = objective_of(always(LUNE, probability=0.75)).draw(spy, batch, 5)
    used = draw.teacher.used
    assert 0.68 < float(used.float().mean()) < 0.82
    assert torch.equal(draw.t[~used], plain.t[~used])
    assert torch.equal(draw.noise[~used], plain.noise[~used])


def test_dropped_prompts_keep_their_time_their_noise_and_the_data():
    batch, spy = batch_with({"lune": 5.0}, n=256), Spy()
    plain = objective_of(None, text_dropout=0.5)
    taught = objective_of(always(LUNE), text_dropout=0.5)
    before, draw = plain.draw(spy, batch, 0), taught.draw(spy, batch, 0)
    dropped = ~draw.keep_text
    assert 90 < int(dropped.sum()) < 166
    assert not draw.teacher.used[dropped].any() and draw.teacher.used[~dropped].all()
    assert torch.equal(draw.t[dropped], before.t[dropped])
    errors = [o.regress(spy, batch, d)[1] for o, d in ((plain, before), (taught, draw))]
    assert torch.equal(errors[0][dropped], errors[1][dropped])
    assert torch.allclose(errors[1][~dropped], torch.tensor(25.0))


def test_samples_without_the_teacher_are_trained_to_the_bit_as_without_any():
    absent = torch.zeros(64, dtype=torch.bool)
    batch, spy = batch_with({"lune": 1.0}, {"lune": absent}), Spy()
    plain, taught = objective_of(None), objective_of(always(LUNE))
    one, other = (o.loss(spy, batch, 3)["flow"] for o in (plain, taught))
    assert torch.equal(one, other) and float(taught.velocity_share) == 0


@pytest.mark.parametrize("path", [LinearPath(), LinearPath(noise_at=1), VPPath()])
@pytest.mark.parametrize("kind", ["velocity", "epsilon", "x0", "v"])
def test_the_target_is_the_mixture_in_the_student_s_prediction(path, kind):
    batch, spy = batch_with({"lune": 0.5}), Spy(path, kind)
    objective = objective_of(always(LUNE, weight=0.25))
    draw = objective.draw(spy, batch, 0)
    data = prediction.target(kind, batch.latents, draw.noise, draw.t, path)
    x_t = path.interpolate(batch.latents, draw.noise, draw.t)
    velocity = torch.full_like(x_t, 0.5)
    teacher = prediction.convert(velocity, x_t, draw.t, path, "velocity", kind)
    spy.forward = lambda x_t, t, cond: Prediction(0.75 * data + 0.25 * teacher)
    assert objective.regress(spy, batch, draw)[1].abs().max() < 1e-9


def test_the_weight_ramps_up():
    targets = VelocityTargets([LUNE], weight=0.8, ramp_steps=10)
    assert [targets.weight_at(step) for step in (0, 5, 10, 99)] == [0, 0.4, 0.8, 0.8]


def test_of_two_teachers_the_better_one_at_the_bucket_is_used():
    batch, spy = batch_with({"lune": 1.0, "sol": 2.0}), Spy()
    targets = always(LUNE, SOL)
    targets.errors = torch.tensor([[0.1, 0.5, 0.5], [0.5, 0.1, 0.1]])
    draw = objective_of(targets).draw(spy, batch, 0)
    first = draw.t == BUCKETS[0]
    assert first.any() and not first.all()
    assert (draw.teacher.velocity[first] == 1.0).all()
    assert (draw.teacher.velocity[~first] == 2.0).all()


def test_where_the_better_teacher_is_absent_the_other_one_is_used():
    present = torch.arange(64) % 2 == 0
    batch, spy = batch_with({"lune": 1.0, "sol": 2.0}, {"lune": present}), Spy()
    targets = always(LUNE, SOL)
    targets.errors = torch.tensor([[0.1] * 3, [0.5] * 3])
    draw = objective_of(targets).draw(spy, batch, 0)
    assert draw.teacher.used.all()
    assert torch.equal(draw.teacher.velocity[:, 0, 0, 0] == 1.0, present)


def test_a_bucket_closes_once_the_student_is_better():
    batch, spy = batch_with({"lune": 1.0}), Spy()
    targets = always(LUNE)
    targets.errors = torch.tensor([[0.1, 0.1, 0.1]])
    assert targets.open_buckets().all(), "before the first validation"
    targets.observe((0.1, 0.5, 0.9), (0.2, 0.05, 0.2), spy.path)
    draw = objective_of(targets).draw(spy, batch, 0)
    plain = objective_of(None).draw(spy, batch, 0)
    nearest = (plain.t[:, None] - torch.tensor(BUCKETS)).abs().argmin(1)
    assert torch.equal(draw.teacher.used, nearest != 1)
    assert torch.equal(draw.t[nearest == 1], plain.t[nearest == 1])
    assert always(LUNE, gate=False).open_buckets().all()


@pytest.mark.parametrize(("path", "errors"), [(LinearPath(), 0), (LinearPath(noise_at=1), 1)])
def test_errors_of_the_student_are_interpolated_from_noise_to_data(path, errors):
    targets = always(LUNE)
    targets.observe((0.3, 0.7), (0.4, 0.2), path)
    expected = torch.tensor([0.4, 0.3, 0.2])
    torch.testing.assert_close(targets.student, expected.flip(0) if errors else expected)
    targets.observe((0.3, 0.7), (float("nan"), 0.2), path)
    assert targets.student is not None, "an error that is not finite changes nothing"
    targets.observe((0.5,), (0.1,), path)
    assert targets.student.tolist() == pytest.approx([0.1] * 3)


def test_measured_errors_continue_from_their_state():
    targets, again = always(LUNE, SOL), always(LUNE, SOL)
    again.restore(targets.state())
    assert again.student is None
    targets.errors = torch.rand(2, 3)
    targets.observe((0.1, 0.9), (0.123456789, 0.2), LinearPath())
    again.restore(targets.state())
    assert torch.equal(again.errors, targets.errors)
    assert torch.equal(again.student, targets.student)


def test_the_choice_belongs_to_the_sample_not_to_its_batch():
    objective = objective_of(always(LUNE, probability=0.5), text_dropout=0.5)
    batch, spy = batch_with({"lune": 1.0}), Spy()
    index = torch.tensor([5, 2, 40])
    drawn = objective.draw(spy, batch, 3)
    part = objective.draw(spy, select(batch, index), 3)
    assert torch.equal(drawn.t[index], part.t) and torch.equal(drawn.noise[index], part.noise)


def test_a_step_is_drawn_for_a_gpu_without_waiting_for_it():
    objective = objective_of(always(LUNE, SOL, probability=0.5), text_dropout=0.5)
    batch, spy = batch_with({"lune": 1.0, "sol": 2.0}), Spy()
    here = objective.draw(spy, batch, 3)
    with PretendedGPU() as gpu:
        there = objective.draw(spy, batch.to("cuda"), 3)
        assert there.noise.device.type == there.t.device.type == "cuda"
    assert gpu.waited == 0
    assert torch.equal(here.noise, there.noise) and torch.equal(here.t, there.t)


def test_a_teacher_s_error_is_that_of_the_student_s_own_regression():
    path, latents = LinearPath(), make_batch(6, experts=False).latents
    ids = list(range(6))
    noise = [LUNE.noise(latents.shape[1:], ids, [k] * 6) for k in range(3)]
    exact = torch.stack([path.velocity(latents, n, torch.full((6,), 0.5)) for n in noise], 1)
    exact[:, 2] += 0.3
    errors = bucket_errors(LUNE, latents, exact, ids, path, "velocity")
    torch.testing.assert_close(errors.mean(0), torch.tensor([0, 0, 0.09], dtype=torch.float64))


def test_samples_with_a_reference_picture_are_refused():
    batch = batch_with({"lune": 1.0})
    batch = Batch(**{**vars(batch), "references": (batch.latents,)})
    with pytest.raises(ConfigError, match="see captions"):
        objective_of(always(LUNE)).draw(Spy(), batch, 0)


def test_targets_without_a_teacher_are_refused():
    with pytest.raises(ConfigError, match="no teacher"):
        VelocityTargets([])
