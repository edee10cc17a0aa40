"""Published weights draw in generate.py what the reference network answers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests import releases
from tests.app.runs import configuration, run
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec

PUBLISHED = (
    "model=deep_v42",
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.attention_head_dim=16",
    "model.axes_dims_rope=[4,6,6]",
    "model.num_double_layers=2",
    "model.num_single_layers=2",
)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Overrides that name small random checkpoints in the layout of the releases."""
    return releases.all_of(tmp_path_factory.mktemp("releases"))


@pytest.mark.parametrize("with_config", [True, False])
def test_published_weights_reproduce_samples_of_the_reference_network(
    tmp_path, real, with_config, monkeypatch
):
    """model=deep_v42 equals load_reference with the original's sampling settings."""
    from tinyflux_pl.config.build import build
    from tinyflux_pl.core.types import Conditioning
    from tinyflux_pl.denoisers.tinyflux import TinyFluxDenoiser, load_reference, to_reference_keys
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.diffusion.paths import LinearPath
    from tinyflux_pl.nets.position_ids import grid_ids
    from tinyflux_pl.sampling.loop import SamplerSettings, sample

    where = [line for line in real if line.startswith(("codec.", "text."))]
    parts = configuration("generate", tmp_path, *PUBLISHED, *where)
    assert parts["codec"]["scaling"] == "unshifted" and parts["sampler"]["toward"] == "data"
    codec, text, path = (build(parts[name]) for name in ("codec", "text", "path"))
    torch.manual_seed(0)
    net = build(
        parts["model"], latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path
    ).net
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.05)
    weights, file = to_reference_keys(net), tmp_path / "published" / "step_1.safetensors"
    file.parent.mkdir()
    save_file(weights, file)
    if with_config:
        (file.parent / "config.json").write_text(json.dumps(net.config.to_dict()))

    drawn = []
    decode = AutoencoderKLCodec.decode
    monkeypatch.setattr(
        AutoencoderKLCodec, "decode", lambda self, z: (drawn.append(z.clone()), decode(self, z))[1]
    )
    chosen = (
        "prompt='a red circle, [left]'",
        "n=2",
        "seed=3",
        "height=32",
        "width=48",
        "run=published",
    )
    how = ("hardware.precision=32-true",)
    run("generate", tmp_path, *PUBLISHED, *where, f"model.weights='{file}'", *chosen, *how)
    monkeypatch.undo()

    reference = load_reference(net.config.to_dict(), weights)
    denoiser = TinyFluxDenoiser(
        reference.config, codec.latent_spec, text.text_spec, LinearPath(noise_at=0)
    )
    denoiser.net = reference
    settings = SamplerSettings(
        steps=28, solver="euler", shift=3.0, toward="data", guidance=Guidance(scale=5.0)
    )
    conditions, negative = (
        text.encode([words]) for words in ("a red circle, [left]", "blurry, distorted, low quality")
    )
    assert conditions.mask.all() and conditions.tokens.shape[1] == parts["text"]["length"]
    x = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(1))
    # as it was trained: without a mask, over all that T5 says of the padding too
    with torch.no_grad():
        answer = denoiser(
            x.mT.reshape(1, 16, 4, 6), torch.tensor([0.3]), Conditioning(conditions)
        ).sample
        plain = reference(
            x, conditions.tokens, conditions.pooled, torch.tensor([0.3]), img_ids=grid_ids(4, 6)
        )
    torch.testing.assert_close(answer.flatten(2).mT, plain, atol=1e-5, rtol=1e-5)
    expected = sample(
        denoiser,
        conditions,
        negative,
        shape=(16, 4, 6),
        sample_ids=[0, 1],
        seed=3,
        settings=settings,
        max_batch=64,
    )
    # the plan decodes before it
    torch.testing.assert_close(drawn[-1], expected, atol=1e-5, rtol=1e-5)
    picture = np.asarray(Image.open(tmp_path / "outputs" / "published" / "image_0001.png"))
    pixels = (
        codec.decode(expected)
        .clamp(-1, 1)[1]
        .add(1)
        .mul(127.5)
        .round()
        .byte()
        .permute(1, 2, 0)
        .numpy()
    )
    assert picture.shape == (32, 48, 3) and np.abs(picture.astype(int) - pixels).max() <= 1
    metadata = json.loads(
        Image.open(tmp_path / "outputs" / "published" / "image_0001.png").text["tinyflux_pl"]
    )
    assert metadata["prompt"] == "a red circle, [left]" and metadata["settings"]["toward"] == "data"
    assert metadata["settings"]["guidance"]["negative"] == "blurry, distorted, low quality"
