"""Losses beyond what the references already pin down."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion import losses


def test_half_precision_inputs_are_compared_in_fp32():
    a = torch.full((2, 3), 1.0, dtype=torch.bfloat16)
    for kind in ("mse", "huber"):
        assert losses.elementwise(kind, a, a + 0.0078125).dtype == torch.float32
    assert float(losses.mse(a, a + 0.0078125)[0, 0]) == 0.0078125**2


def test_huber_is_quadratic_then_linear():
    error = torch.tensor([0.05, 0.1, 1.0])
    loss = losses.huber(error, torch.zeros(3), delta=0.1)
    torch.testing.assert_close(loss, torch.tensor([0.00125, 0.005, 0.095]))


def test_a_mask_at_image_resolution_is_averaged_over_the_latent_cells():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4, :2] = 1  # upper left cell of 2 x 2: half covered
    weight = losses.mask_weight(mask, fg=2.0, bg=0.5, h=2, w=2)
    torch.testing.assert_close(weight, torch.tensor([[[1.25, 0.5], [0.5, 0.5]]]))


def test_spatial_weight_has_mean_one_for_any_shape():
    weight = losses.spatial_weight(torch.rand(3, 8, 8), 12, 20)
    assert weight.shape == (3, 12, 20)
    torch.testing.assert_close(weight.mean((1, 2)), torch.ones(3), rtol=1e-4, atol=1e-4)


def test_cosine_loss_of_parallel_and_opposite_vectors():
    a = torch.randn(2, 5)
    loss = losses.cosine(torch.stack([a[0], a[1]]), torch.stack([3 * a[0], -a[1]]))
    torch.testing.assert_close(loss, torch.tensor([0.0, 2.0]), atol=1e-6, rtol=1e-6)


def test_r1_of_a_linear_critic_is_its_squared_weight_and_trains_it():
    weight = torch.full((3, 4, 4), 0.5, requires_grad=True)
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    penalty = losses.r1((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, torch.full((2,), 12.0))
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 2.0))


def test_unknown_loss_names_the_valid_ones():
    with pytest.raises(ConfigError, match="huber"):
        losses.elementwise("l1", torch.zeros(1), torch.zeros(1))


def test_an_unknown_error_function_is_refused_by_its_key():
    losses.check_error("huber")
    with pytest.raises(ConfigError, match="l3") as caught:
        losses.check_error("l3")
    assert caught.value.where == "objective.error" and "mse, huber" in caught.value.cure
