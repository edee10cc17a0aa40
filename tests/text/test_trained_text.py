"""Text encoders that train: ids that a cache holds exactly, a network inside the denoiser."""

import pytest
import torch

from tinyflux_pl.core.specs import LatentSpec
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers import text_network
from tinyflux_pl.denoisers.fluxflow import FluxFlowConfig, FluxFlowDenoiser
from tinyflux_pl.diffusion.paths import build_path
from tinyflux_pl.text.bezier_text import BezierText
from tinyflux_pl.text.token_ids import LARGEST_VOCABULARY, as_digits, as_ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_id_survives_the_dtypes_of_caches(dtype):
    ids = torch.arange(LARGEST_VOCABULARY)[None]
    assert torch.equal(as_ids(as_digits(ids).to(dtype)), ids)


def encoder():
    return BezierText(width=8, length=6, layers=1, heads=2, vocabulary=64)


def test_a_prompt_has_the_same_ids_everywhere_and_padding_changes_nothing():
    text, network = encoder(), encoder().trained_network()
    encoded = text.encode(["a red circle", "a red circle at the top", ""])
    assert encoded.tokens.shape == (3, 6, 2)
    assert encoded.mask.sum(1).tolist() == [3, 6, 1]
    assert torch.equal(encoded.tokens[0, :3], encoded.tokens[1, :3])
    alone = network(text.encode(["a red circle"]).trimmed())
    joint = network(encoded)
    torch.testing.assert_close(joint.tokens[:1, :3], alone.tokens)
    torch.testing.assert_close(joint.pooled[:1], alone.pooled)
    with pytest.warns(UserWarning, match="is cut at 6"):
        text.encode(["a b c d e f g"])


def test_the_network_trains_inside_the_denoiser():
    torch.manual_seed(0)
    text, path = encoder(), build_path("vp", {})
    sizes = FluxFlowConfig(width=8, heads=2, layers=1)
    denoiser = FluxFlowDenoiser(sizes, LatentSpec(3, 1), text.embedded_spec, path)
    torch.nn.init.normal_(denoiser.net.x_out.weight)
    text_network.attach(denoiser, text.trained_network())
    cond = Conditioning(text.encode(["a red circle", "a blue square"]))
    denoiser(
        torch.randn(2, 3, 4, 4), torch.tensor([0.2, 0.7]), cond
    ).sample.square().sum().backward()
    named = dict(denoiser.named_parameters())
    rows = named["text_network.network.words.weight"].grad.abs().sum(1)
    used = text.ids(["a red circle", "a blue square"])[0].unique()
    assert rows[used[used > 0]].all()
    assert all(p.grad is not None for name, p in named.items() if name.startswith("text_network"))
