"""Ids and masks of Flux in every form that they may come in."""

import pytest
import torch

from tests.nets.test_flux import inputs, network


@torch.no_grad()
def test_ids_without_a_batch_serve_all_samples():
    net, given = network(), inputs()
    bare = {name: given[name][0] for name in ("img_ids", "txt_ids")}
    spread = {name: value.expand(2, -1, -1) for name, value in bare.items()}
    assert torch.equal(net(**{**given, **bare}), net(**{**given, **spread}))
    one = {name: value[:1] for name, value in given.items()}
    assert net(**{**one, **bare}).shape == (1, 6, 3)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float32])
def test_masks_of_numbers_and_one_for_all_samples_are_masks(kind):
    net, given = network(), inputs()
    masks = {
        "img_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
        "txt_mask": torch.tensor([[1, 1, 0, 0, 0]]),
    }
    truth = {name: mask.bool().expand(2, -1) for name, mask in masks.items()}
    assert torch.equal(
        net(**given, **{name: mask.to(kind) for name, mask in masks.items()}), net(**given, **truth)
    )


def test_a_sample_that_is_all_padding_answers_nothing_and_spoils_no_gradient():
    net, given = network(), inputs()
    img_mask, txt_mask = torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    img_mask[0], txt_mask[0] = False, False
    out = net(**given, img_mask=img_mask, txt_mask=txt_mask)
    out.square().sum().backward()
    assert (out[0] == 0).all() and all(p.grad.isfinite().all() for p in net.parameters())
    alone = {name: value[1:] for name, value in given.items()}
    assert torch.allclose(net(**alone)[0], out[1], atol=1e-5)


@torch.no_grad()
def test_no_condition_is_one_that_is_all_padding():
    net, given = network(), inputs()
    none = net(**{**given, "txt": given["txt"][:, :0], "txt_ids": given["txt_ids"][:, :0]})
    assert torch.allclose(
        none, net(**given, txt_mask=torch.zeros(2, 5, dtype=torch.bool)), atol=1e-5
    )
