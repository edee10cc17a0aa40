"""Control branches: an untrained one changes nothing, a trained one reads its map."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.methods.controlnet import ControlNet

WITHOUT = {"unet", "fluxflow"}  # their blocks need one another, or have no streams of one width


@pytest.fixture(scope="module", params=sorted(SMALL.keys() - WITHOUT))
def base(request):
    torch.manual_seed(0)
    model = SMALL[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.requires_grad_(False)  # kernels may round otherwise where gradients are wanted


@pytest.fixture
def controlled(base):
    """The base with an untrained branch, and a question with a map."""
    model = build_denoiser(base.name, base.config_dict(), base.path).eval()
    model.load_state_dict(base.state_dict())
    torch.manual_seed(1)
    ControlNet().prepare(model)
    x, t, cond = example(model)
    hint = torch.rand(len(x), *model.hint_shape(*x.shape[2:]))
    return model, x, t, replace(cond, hint=hint)


def moved(model):
    """The branch after some training: nothing of it is zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("control."):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def test_an_untrained_branch_is_bit_equal_to_its_base(base, controlled):
    model, x, t, cond = controlled
    expected = base(x, t, replace(cond, hint=None)).sample
    assert torch.equal(model(x, t, cond).sample, expected)


@torch.no_grad()
def test_a_trained_branch_reads_its_map_and_strength_zero_equals_the_base(base, controlled):
    model, x, t, cond = controlled
    moved(model)
    first, other = model(x, t, cond).sample, model(x, t, replace(cond, hint=1 - cond.hint)).sample
    assert not torch.allclose(first, other, atol=1e-5)
    model.branch.strength = 0.5
    assert not torch.allclose(first, model(x, t, cond).sample, atol=1e-5)
    model.branch.strength = 0.0
    expected = base(x, t, replace(cond, hint=None)).sample
    assert torch.equal(model(x, t, cond).sample, expected)


def test_only_parameters_of_the_branch_have_gradients(controlled):
    model, x, t, cond = controlled
    moved(model)(x, t, cond).sample.square().mean().backward()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names and all(name.startswith("control.") for name in names)
    assert names <= ControlNet().saved(model)
    still = [n for n, p in model.named_parameters() if n in names and not (p.grad != 0).any()]
    # the bias of a key moves every score alike, which softmax does not see
    assert [name for name in still if "bias" not in name] == []
    assert all(p.grad is None for n, p in model.named_parameters() if n not in names)


def test_gradient_checkpointing_changes_no_gradient(controlled):
    model, x, t, cond = controlled
    moved(model)
    gradients = []
    for again in (False, True):
        if again:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        torch.manual_seed(0)  # of a dropout
        model.train()(x, t, cond).sample.square().mean().backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@torch.no_grad()
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(controlled):
    model, x, t, cond = controlled
    joint = moved(model)(x, t, cond).sample
    for i in range(len(x)):
        rows = slice(i, i + 1)
        alone = model(x[rows], t[rows], cond.rows(lambda part, rows=rows: part[rows])).sample
        torch.testing.assert_close(alone, joint[rows], atol=2e-5, rtol=1e-4)


def test_missing_and_unread_maps_are_refused(base, controlled):
    model, x, t, cond = controlled
    with pytest.raises(ConfigError, match="given no map"):
        model(x, t, replace(cond, hint=None))
    with pytest.raises(ConfigError, match="reads no maps"):
        base(x, t, cond)


def test_a_depth_beyond_the_blocks_is_refused(base):
    with pytest.raises(ConfigError, match="depth"):
        ControlNet(depth=1000).prepare(deepcopy(base))


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_a_network_without_suitable_blocks_is_refused(name):
    with pytest.raises(ConfigError, match="no control branch fits"):
        ControlNet().prepare(SMALL[name]())
