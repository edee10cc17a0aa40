"""Velocities stored as int8 levels: their error is bounded, in a store of any dtype."""

import pytest
import torch

from tests.experts.conftest import make_teacher
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.experts.int8_storage import from_levels, to_levels
from tinyflux_pl.experts.velocity import Velocity

BUCKETS = (0.1, 0.5, 0.9)


@pytest.fixture
def velocity():
    values = torch.randn(4, 3, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    return values * torch.logspace(-1, 3, 12).view(4, 3, 1, 1, 1)


@pytest.mark.parametrize("store_dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_error_is_half_a_level_of_each_sample_and_bucket(velocity, store_dtype):
    levels, scale = to_levels(velocity)
    assert levels.dtype == torch.int8
    stored = scale.to(store_dtype).float()
    assert torch.equal(stored, scale)
    for bucket in range(3):
        again = from_levels(levels[:, bucket].float(), stored[:, bucket])
        bound = velocity[:, bucket].abs().amax((1, 2, 3)) / 127 * 0.51
        assert ((again - velocity[:, bucket]).abs().amax((1, 2, 3)) <= bound).all()


def test_velocities_that_are_all_zero_stay_zero():
    levels, scale = to_levels(torch.zeros(1, 1, 2, 2, 2))
    assert torch.equal(from_levels(levels[:, 0].float(), scale[:, 0]), torch.zeros(1, 2, 2, 2))


def test_an_expert_reads_back_its_teacher_s_velocities_from_levels(samples):
    latents, text, _ = samples
    path, ids = LinearPath(), [1, 2, 3, 4]
    exact, rounded = Velocity("lune", BUCKETS), Velocity("lune", BUCKETS, int8=True)
    columns = {
        expert: expert.extractor(make_teacher("lune"), path, 0).extract(latents, text, ids)
        for expert in (exact, rounded)
    }
    shapes = rounded.spec.shapes_for(tuple(latents.shape[1:]))
    stored = {key.partition(".")[2]: tuple(c.shape[2:]) for key, c in columns[rounded].items()}
    assert stored == shapes
    bucket = torch.tensor([0, 1, 2, 0])
    expected = exact.velocity(columns[exact], bucket)
    error = (rounded.velocity(columns[rounded], bucket) - expected).square().mean().sqrt()
    assert 0 < error < 0.01 * expected.square().mean().sqrt()


def test_a_cache_of_levels_is_another_cache():
    fingerprints = [
        Velocity("lune", BUCKETS, int8=int8)
        .extractor(make_teacher("lune"), LinearPath(), 0)
        .fingerprint()
        for int8 in (False, True)
    ]
    assert fingerprints[0] != fingerprints[1]
    assert "levels" not in fingerprints[0]
