"""The field: any prediction as dx/dt, one forward for both branches, and evaluations counted."""

import pytest
import torch

from tests.denoisers import test_tinyflux
from tinyflux_pl.core.block_stack import skipping
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, Prediction, TextEmbeddings
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.diffusion.prediction import KINDS, target
from tinyflux_pl.sampling.field import Field, batched


def words(rows, length, value=1.0):
    return TextEmbeddings(
        torch.full((rows, length, 2), value),
        torch.ones(rows, length, dtype=torch.bool),
        torch.full((rows, 3), value),
    )


class KnownFlow:
    """Knows the data and noise behind x_t: data is the pooled text's value."""

    name, ports = "known", ()
    latent_spec, text_spec = LatentSpec(2, 8), TextSpec(2, 8, 3)

    def block_stack(self):
        return ()

    def __init__(self, path, prediction="velocity"):
        self.path, self.prediction, self.seen = path, prediction, []

    def __call__(self, x_t, t, cond):
        self.seen.append((x_t, t, cond))
        data = cond.text.pooled[:, :1, None, None].expand_as(x_t)
        sample = target(self.prediction, data, torch.ones_like(x_t), t, self.path)
        return Prediction(sample.bfloat16() if x_t.dtype == torch.float32 else sample)


@pytest.mark.parametrize("path", [LinearPath(0), LinearPath(1), VPPath()], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_the_velocity_for_every_prediction_type(path, kind):
    t = torch.full((2,), 0.4, dtype=torch.float64)
    data, noise = (torch.full((2, 2, 4, 4), v, dtype=torch.float64) for v in (3.0, 1.0))
    x = path.interpolate(data, noise, t)
    velocity = Field(KnownFlow(path, kind), Conditioning(words(2, 5, 3.0)))(x, t)
    torch.testing.assert_close(velocity, path.velocity(data, noise, t), rtol=1e-5, atol=1e-5)


def test_state_stays_fp32_under_a_half_precision_denoiser():
    field = Field(KnownFlow(LinearPath()), Conditioning(words(2, 5)))
    assert field(torch.zeros(2, 2, 4, 4), torch.full((2,), 0.5)).dtype == torch.float32


def test_both_guidance_branches_share_one_forward_padded_to_equal_length():
    denoiser = KnownFlow(LinearPath())
    field = Field(
        denoiser, Conditioning(words(2, 5, 4.0)), Conditioning(words(2, 1, 2.0)), Guidance(3.0)
    )
    out = field(torch.zeros(2, 2, 4, 4), torch.full((2,), 0.5))
    assert len(denoiser.seen) == 1 and field.nfe == 2
    x, t, cond = denoiser.seen[0]
    assert x.shape[0] == t.shape[0] == len(cond.text) == 4
    assert cond.text.mask.sum(1).tolist() == [5, 5, 1, 1]
    # velocities: cond 4 - 1, uncond 2 - 1; 1 + 3 (3 - 1)
    assert torch.equal(out, torch.full_like(out, 7.0))


def test_the_unconditional_is_not_evaluated_outside_the_interval_or_at_scale_one():
    guidance = Guidance(3.0, interval=(0.4, 0.6))
    field = Field(
        KnownFlow(LinearPath(1)), Conditioning(words(1, 2)), Conditioning(words(1, 2)), guidance
    )
    x, counts = torch.zeros(1, 2, 4, 4), []
    for t in (0.9, 0.5, 0.1):
        field(x, torch.tensor([t]))
        counts.append(field.nfe)
    assert counts == [1, 3, 4]
    single = Field(
        KnownFlow(LinearPath()), Conditioning(words(1, 2)), Conditioning(words(1, 2)), Guidance(1.0)
    )
    single(x, torch.tensor([0.5]))
    assert single.nfe == 1


def test_the_interval_counts_from_noise_on_every_clock():
    early = Guidance(3.0, interval=(0.0, 0.3))
    for path in (LinearPath(0), LinearPath(1), VPPath()):
        field = Field(KnownFlow(path), Conditioning(words(1, 2)), Conditioning(words(1, 2)), early)
        field(torch.zeros(1, 2, 4, 4), torch.tensor([abs(path.t_noise - 0.1)]))
        assert field.nfe == 2


def test_a_port_of_one_branch_is_masked_in_the_other():
    cond = Conditioning(
        words(2, 3), {"vec": torch.ones(2, 6)}, {"vec": torch.tensor([True, False])}
    )
    both = batched(cond, Conditioning(words(2, 3)))
    assert both.port_mask["vec"].tolist() == [True, False, False, False]
    assert both.ports["vec"].sum(1).tolist() == [6, 6, 0, 0]


@pytest.mark.parametrize(
    "make, says",
    [
        (
            lambda: Field(KnownFlow(LinearPath()), Conditioning(words(1, 2)), None, Guidance(2.0)),
            "null",
        ),
        (
            lambda: Field(
                KnownFlow(LinearPath()),
                Conditioning(words(2, 2)),
                Conditioning(words(1, 2)),
                Guidance(2.0),
            ),
            "expand",
        ),
        (
            lambda: batched(
                Conditioning(words(1, 2), embedded_guidance=torch.ones(1)),
                Conditioning(words(1, 2)),
            ),
            "both",
        ),
    ],
)
def test_incompatible_conditioning_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_skip_layer_guidance_adds_one_evaluation_only_inside_its_interval():
    torch.manual_seed(0)
    denoiser = test_tinyflux.denoiser().eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    spec = denoiser.text_spec
    text = TextEmbeddings(
        torch.randn(2, 3, spec.width),
        torch.ones(2, 3, dtype=torch.bool),
        torch.randn(2, spec.pooled),
    )
    guidance = Guidance(1.0, skip_layers=[1], skip_scale=2.0, skip_interval=(0.0, 0.5))
    field = Field(denoiser, Conditioning(text), guidance=guidance)
    x = torch.randn(2, denoiser.latent_spec.channels, 4, 4)
    early, late = torch.full((2,), 0.25), torch.full((2,), 0.75)
    with torch.no_grad():
        plain = denoiser(x, early, Conditioning(text)).sample
        with skipping(denoiser.block_stack(), [1]):
            skipped = denoiser(x, early, Conditioning(text)).sample
        torch.testing.assert_close(field(x, early), plain + 2.0 * (plain - skipped))
        assert field.nfe == 2 and not torch.equal(plain, skipped)
        assert torch.equal(field(x, late), denoiser(x, late, Conditioning(text)).sample)
    assert field.nfe == 3


def test_unskippable_layers_are_refused():
    guidance = Guidance(1.0, skip_layers=[1])
    with pytest.raises(ConfigError, match="no blocks"):
        Field(KnownFlow(LinearPath()), Conditioning(words(1, 2)), guidance=guidance)
    with pytest.raises(ConfigError, match="no block 99"):
        Field(
            test_tinyflux.denoiser(),
            Conditioning(words(1, 2)),
            guidance=Guidance(1.0, skip_layers=[99]),
        )
