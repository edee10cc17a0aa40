"""Every parameter that is trained is read: several ranks wait for the gradient of each."""

import pytest
import torch

from tests.app.runs import settings
from tinyflux_pl.app.memory.training_memory import Planner

SMALL = ("model.hidden_size=16", "model.num_attention_heads=1", "model.attention_head_dim=16")
SMALL += ("model.axes_dims_rope=[4,6,6]", "model.num_double_layers=1", "model.num_single_layers=1")
PUBLISHED = ("model=deep_v42", *SMALL)
LITERAL = ("experts.sol.clock=literal", "experts.sol.stats=3", "teacher=sd15_flow")
CHOICES = {
    "published": PUBLISHED,
    "published with Sol": (*PUBLISHED, "experts=sol", *LITERAL),
    "published with Lune": (*PUBLISHED, "experts=lune", "teacher=sd15_flow"),
    "published with both": (*PUBLISHED, "experts=lune_sol", *LITERAL),
    "new": SMALL,
    "new with both": (*SMALL, "experts=lune_sol"),
    "deep": ("model=deep", *SMALL),
    "unet": ("model=unet", "optimizer=adamw"),
}


@pytest.mark.parametrize("choices", list(CHOICES.values()), ids=list(CHOICES))
def test_every_trained_parameter_has_a_gradient(choices, tmp_path):
    planner = Planner(settings("train", tmp_path, *choices))
    torch.autograd.backward(planner._loss(2))
    trained = {name: p for name, p in planner.denoiser.named_parameters() if p.requires_grad}
    assert len(trained) > 10
    assert [name for name, p in trained.items() if p.grad is None] == []
