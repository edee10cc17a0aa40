"""Ids and masks of Flux in every form that they may come in."""

import pytest
import torch

from tests.nets.test_flux import inputs, network


@torch.no_grad()
def test_position_ids_without_batch_dimension_are_broadcast():
    net, batch = network(), inputs()
    bare = {name: batch[name][0] for name in ("img_ids", "txt_ids")}
    spread = {name: value.expand(2, -1, -1) for name, value in bare.items()}
    assert torch.equal(net(**{**batch, **bare}), net(**{**batch, **spread}))
    one = {name: value[:1] for name, value in batch.items()}
    assert net(**{**one, **bare}).shape == (1, 6, 3)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float32])
def test_numeric_and_broadcast_masks_are_accepted(kind):
    net, batch = network(), inputs()
    masks = {
        "img_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
        "txt_mask": torch.tensor([[1, 1, 0, 0, 0]]),
    }
    truth = {name: mask.bool().expand(2, -1) for name, mask in masks.items()}
    assert torch.equal(
        net(**batch, **{name: mask.to(kind) for name, mask in masks.items()}), net(**batch, **truth)
    )


def test_a_fully_padded_sample_outputs_zero_and_finite_gradients():
    net, batch = network(), inputs()
    img_mask, txt_mask = torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    img_mask[0], txt_mask[0] = False, False
    out = net(**batch, img_mask=img_mask, txt_mask=txt_mask)
    out.square().sum().backward()
    assert (out[0] == 0).all() and all(p.grad.isfinite().all() for p in net.parameters())
    alone = {name: value[1:] for name, value in batch.items()}
    assert torch.allclose(net(**alone)[0], out[1], atol=1e-5)


@torch.no_grad()
def test_an_empty_condition_equals_a_fully_padded_one():
    net, batch = network(), inputs()
    none = net(**{**batch, "txt": batch["txt"][:, :0], "txt_ids": batch["txt_ids"][:, :0]})
    assert torch.allclose(
        none, net(**batch, txt_mask=torch.zeros(2, 5, dtype=torch.bool)), atol=1e-5
    )
