import torch

from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS, interpolate


def test_interpolation_is_exact_at_buckets_and_linear_between():
    knots = torch.tensor(T_BUCKETS)
    table = (3 * knots - 1)[None, :, None].expand(12, -1, 2)
    torch.testing.assert_close(
        interpolate(table[:10], knots), (3 * knots - 1)[:, None].expand(-1, 2)
    )
    t = torch.linspace(0.05, 0.95, 12)
    torch.testing.assert_close(interpolate(table, t), (3 * t - 1)[:, None].expand(-1, 2))


def test_interpolation_is_constant_beyond_the_outer_buckets():
    table = torch.randn(2, 10, 3, 3)
    interpolated = interpolate(table, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(
        interpolated, torch.stack([table[0, 0], table[1, -1]]), rtol=0, atol=0
    )


def test_each_sample_interpolates_its_own_features():
    table = torch.arange(3.0)[:, None, None].expand(3, 10, 4)
    assert interpolate(table, torch.full((3,), 0.33))[:, 0].tolist() == [0.0, 1.0, 2.0]


def test_interpolation_handles_uneven_buckets_and_half_precision():
    table = torch.tensor([[0.0, 1.0, 5.0]]).half()
    interpolated = interpolate(table, torch.tensor([0.6]), (0.0, 0.2, 1.0))
    assert interpolated.dtype == torch.float32
    torch.testing.assert_close(interpolated, torch.tensor([3.0]))
