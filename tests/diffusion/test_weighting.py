"""Min-SNR means one thing: the x0 loss weighted by min(snr, gamma), whatever is predicted."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.prediction import convert
from tinyflux_pl.diffusion.weighting import Weighting, min_snr


@pytest.mark.parametrize(
    "path, kind",
    [(LinearPath(0), "velocity"), (LinearPath(1), "velocity"), (VPPath(), "v")]
    + [(p, k) for p in (LinearPath(0), VPPath()) for k in ("epsilon", "x0")],
)
def test_every_form_is_the_same_weighted_x0_loss(path, kind):
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    x_t, right, wrong = (torch.randn(7, 20, dtype=torch.float64) for _ in range(3))
    log_snr = path.log_snr(t)
    x0_loss = (right - wrong).square().mean(1) * log_snr.exp().clamp_max(5.0)
    outputs = [convert(x0, x_t, t, path, "x0", kind) for x0 in (right, wrong)]
    loss = (outputs[0] - outputs[1]).square().mean(1) * min_snr(log_snr, kind)
    torch.testing.assert_close(loss, x0_loss, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["velocity", "v", "epsilon", "x0"])
def test_weights_are_finite_at_both_ends(kind):
    weight = min_snr(LinearPath().log_snr(torch.tensor([0.0, 0.5, 1.0])), kind)
    assert torch.isfinite(weight).all() and (weight >= 0).all() and weight.max() <= 5


def test_weighting_selects_its_form_by_name():
    log_snr = torch.tensor([-3.0, 4.0])
    assert torch.equal(Weighting()(log_snr, "velocity"), torch.ones(2))
    assert torch.equal(Weighting("min_snr", 2.0)(log_snr, "v"), min_snr(log_snr, "v", 2.0))
    torch.testing.assert_close(
        Weighting("min_snr_literal")(log_snr, "velocity"),
        torch.tensor([1.0, 5 / torch.tensor(4.0).exp()]),
    )


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Weighting("minsnr"), "min_snr"),
        (lambda: Weighting(gamma=0.0), "positive"),
        (lambda: min_snr(torch.zeros(1), "score"), "epsilon"),
    ],
)
def test_invalid_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
