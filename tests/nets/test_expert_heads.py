"""Sol's maps share one scale, are read like image resizing, and teachers are chosen per row."""

import pytest
import torch
import torch.nn.functional as F

from tinyflux_pl.nets.expert_heads import LunePredictor, SolPrior, map_at_tokens
from tinyflux_pl.nets.position_ids import grid_ids


def sol(map_kind):
    return SolPrior(16, 8, 16, 4, 8, 4, 0.7, map_kind)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (8, 12), (4, 16), (5, 3)])
def test_reading_a_map_equals_bilinear_interpolation(height, width):
    spatial = torch.rand(2, 8, 8)
    resized = F.interpolate(
        spatial[:, None], (height, width), mode="bilinear", align_corners=False
    ).flatten(1)
    assert torch.allclose(map_at_tokens(spatial, grid_ids(height, width)), resized, atol=1e-6)


def test_position_ids_may_differ_between_samples():
    spatial, ids = torch.rand(2, 8, 8), grid_ids(4, 6)
    order = torch.randperm(24)
    per_sample = torch.stack((ids[order], grid_ids(6, 4)))
    values = map_at_tokens(spatial, per_sample)
    assert torch.allclose(values[0], map_at_tokens(spatial, ids)[0, order], atol=1e-6)
    assert torch.allclose(values[1], map_at_tokens(spatial, grid_ids(6, 4))[1], atol=1e-6)


def test_density_maps_have_a_mean_of_one():
    head, t = sol("density"), torch.tensor([0.0, 0.4, 1.0])
    teacher = torch.rand(3, 64).softmax(-1).view(3, 8, 8)
    prediction = head(torch.randn(3, 16), torch.randn(3, 8), t, torch.rand(3, 4), teacher)
    one = torch.ones(3)
    assert torch.allclose(prediction["spatial_pred"].mean((1, 2)), one, atol=1e-5)
    assert torch.allclose(head.geometric_map(t).mean((1, 2)), one, atol=1e-5)
    assert torch.allclose(prediction["spatial_importance"].mean((1, 2)), one, atol=1e-5)
    alone = head(torch.randn(3, 16), torch.randn(3, 8), t)
    assert torch.allclose(alone["spatial_importance"].mean((1, 2)), one, atol=1e-5)


def test_sigmoid_maps_keep_the_published_scales():
    head, teacher = sol("sigmoid"), torch.full((1, 8, 8), 1 / 64)
    time, pooled, t = torch.randn(1, 16), torch.randn(1, 8), torch.tensor([0.25])
    prediction = head(time, pooled, t, None, teacher)
    blend = torch.sigmoid(head.blend_gate)
    assert torch.allclose(
        prediction["spatial_importance"],
        blend * head.geometric_map(t) + (1 - blend) / 64,
        atol=1e-6,
    )
    assert prediction["spatial_pred"].max() < 1


def test_port_masks_select_the_teacher_per_sample():
    present = torch.tensor([True, False])
    time, pooled, t = torch.randn(2, 16), torch.randn(2, 8), torch.rand(2)
    lune = LunePredictor(16, 8, 16, 24, 16, 0.1).eval()
    features = torch.randn(2, 24)
    with_both, without = lune(time, pooled, features), lune(time, pooled)
    mixed = lune(time, pooled, features, present)["expert_signal"]
    assert torch.equal(mixed[0], with_both["expert_signal"][0])
    assert torch.equal(mixed[1], without["expert_signal"][1])
    assert not torch.allclose(mixed[0], without["expert_signal"][0])
    head, stats, spatial = (
        sol("density"),
        torch.rand(2, 4),
        torch.rand(2, 64).softmax(-1).view(2, 8, 8),
    )
    torch.nn.init.normal_(head.stat_to_temperature[2].weight)
    full, none, some = (
        head(time, pooled, t, stats, spatial, m) for m in (None, present & False, present)
    )
    for name in ("temperature", "spatial_importance"):
        assert torch.equal(some[name][0], full[name][0])
        assert torch.equal(some[name][1], none[name][1])
        assert not torch.allclose(full[name][1], none[name][1])
