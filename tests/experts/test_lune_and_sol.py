import pytest
import torch

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.specs import ExpertSpec
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.experts.sol import Sol


@pytest.fixture
def cached():
    spatial = torch.rand(3, 10, 8, 8)
    return {
        "lune.features": torch.randn(3, 10, 16).half(),
        "sol.stats": torch.rand(3, 10, 4),
        "sol.spatial": spatial / spatial.sum((2, 3), keepdim=True),
    }


def test_port_inputs_are_bucket_features_interpolated_at_t(cached):
    t = torch.tensor([0.05, 0.5, 1.0])
    vec = Lune(16).ports(cached, t)["vec"]
    assert vec.dtype == torch.float32
    torch.testing.assert_close(vec[0], cached["lune.features"][0, 0].float())
    torch.testing.assert_close(
        vec[1], cached["lune.features"][1, 4:6].float().mean(0), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(vec[2], cached["lune.features"][2, -1].float())
    prior = Sol().ports(cached, t)
    assert prior["prior_stats"].shape == (3, 4) and prior["prior_map"].shape == (3, 8, 8)
    torch.testing.assert_close(prior["prior_map"].sum((1, 2)), torch.ones(3))


def test_missing_or_misshapen_buckets_are_refused(cached):
    t = torch.rand(3)
    with pytest.raises(DataError, match=r"no 'lune\.features'"):
        Lune(16).ports({}, t)
    with pytest.raises(DataError, match=r"\(10, 16\) a sample, expected \(10, 1280\)"):
        Lune().ports(cached, t)
    with pytest.raises(DataError, match=r"sol\.stats"):
        Sol(stats=3).ports(cached, t)


def test_specs_name_features_shapes_and_buckets():
    assert Lune(16).spec == ExpertSpec("lune", {"features": (16,)}, T_BUCKETS)
    assert Sol().spec == ExpertSpec("sol", {"stats": (4,), "spatial": (8, 8)}, T_BUCKETS)


def test_the_loss_weight_ramps_up_from_zero():
    lune = Lune(weight=0.1, ramp_steps=1000)
    assert [lune.weight_at(step) for step in (0, 500, 1000, 5000)] == pytest.approx(
        [0, 0.05, 0.1, 0.1]
    )
    assert Lune(weight=0.1, ramp_steps=0).weight_at(0) == pytest.approx(0.1)


def test_teacher_dropout_follows_its_schedule():
    sol = Sol(dropout=0.1, dropout_end=1.0, dropout_steps=100)
    assert [sol.dropout_at(step) for step in (0, 50, 100, 900)] == pytest.approx(
        [0.1, 0.55, 1.0, 1.0]
    )
    assert [Sol(dropout=0.2).dropout_at(step) for step in (0, 10**6)] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("kind", ["cosine", "huber", "soft", "hard"])
def test_lune_losses_are_per_sample_zero_at_the_target_and_differentiable(kind):
    lune = Lune(16, loss=kind)
    target = torch.randn(3, 16)
    prediction = (target + 0.5 * torch.randn(3, 16)).requires_grad_()
    loss = lune.loss({"vec": prediction}, {"vec": target})
    assert loss.shape == (3,) and (loss > 0).all()
    loss[0].backward()
    assert prediction.grad[0].any() and not prediction.grad[1:].any()
    torch.testing.assert_close(
        lune.loss({"vec": target}, {"vec": target}), torch.zeros(3), atol=1e-6, rtol=0
    )


def test_the_map_loss_of_sol_compares_maps_at_a_mean_of_one(cached):
    targets = Sol().ports(cached, torch.rand(3))
    flat = {"prior_stats": targets["prior_stats"], "prior_map": torch.ones(3, 8, 8)}
    density = Sol().loss(flat, targets)
    assert (density > 0.05).all()
    ideal = {"prior_stats": targets["prior_stats"], "prior_map": targets["prior_map"] * 64}
    torch.testing.assert_close(Sol().loss(ideal, targets), torch.zeros(3), atol=1e-6, rtol=0)
    same_scale = {"prior_stats": targets["prior_stats"], "prior_map": torch.full((3, 8, 8), 1 / 64)}
    torch.testing.assert_close(
        Sol(map_scale="sum").loss(same_scale, targets) * 64**2, density, rtol=1e-3, atol=1e-5
    )


def test_absent_samples_are_left_out_of_the_mean():
    lune, target = Lune(4, loss="hard"), torch.zeros(3, 4)
    prediction = torch.tensor([1.0, 5.0, 3.0])[:, None].expand(3, 4)
    present = torch.tensor([True, False, True])
    assert lune.losses({"vec": prediction}, {"vec": target}, present).item() == pytest.approx(5.0)
    assert (
        lune.losses({"vec": prediction}, {"vec": target}, torch.zeros(3, dtype=torch.bool)).item()
        == 0
    )


def test_experts_are_rebuilt_from_their_config():
    lune = Lune(
        16, weight=0.3, ramp_steps=7, dropout=0.2, dropout_end=0.9, dropout_steps=5, loss="huber"
    )
    sol = Sol(stats=3, size=4, map_scale="sum", map_weight=0.5)
    for expert in (lune, sol):
        again = type(expert)(**expert.config())
        assert again.config() == expert.config() and again.spec == expert.spec
        assert again.dropout_at(3) == expert.dropout_at(3)


@pytest.mark.parametrize(
    "changes",
    [{"loss": "l2"}, {"dropout": 1.5}, {"dropout_end": 1.0}, {"weight": -1}, {"ramp_steps": -1}],
)
def test_invalid_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        Lune(16, **changes)
