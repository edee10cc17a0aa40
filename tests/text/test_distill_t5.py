"""DistillT5: a small T5 with its trained projection stands in for FLUX.1's T5-XXL."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import linear, relu

from tests import releases, releases_flux1
from tests.families import drawing
from tests.text.test_flux1_encoder_files import FLUX1
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.text.distill_t5 import DistillT5

HEIGHT, WIDTH, STEPS, NARROW = 32, 48, 3, 8
LENGTH = releases_flux1.TEXT_LENGTH


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("flux1"))


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, release):
    """The folder as it is published, and its parts: the encoder and the two projections."""
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("distilled")
    vocabulary = AutoTokenizer.from_pretrained(release / "tokenizer_2").get_vocab()
    config = T5Config(**releases.t5_text(vocabulary, NARROW))
    torch.manual_seed(11)
    encoder = T5EncoderModel(config).eval()
    first = torch.randn(releases.T5_WIDTH, NARROW)
    second = torch.randn(releases.T5_WIDTH, releases.T5_WIDTH) / 4
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    del state["encoder.encoder.embed_tokens.weight"]
    state |= {"final_projection.0.weight": first, "final_projection.3.weight": second}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    widths = {"project_in_dim": NARROW, "project_out_dim": releases.T5_WIDTH}
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), **widths}))
    return folder, (encoder, first, second)


def projected(parts, ids):
    encoder, first, second = parts
    states = encoder(input_ids=ids).last_hidden_state
    return linear(relu(linear(states, first)), second)


def ids_of(release, prompts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(release / "tokenizer_2")
    padded = dict(padding="max_length", max_length=LENGTH, return_tensors="pt")
    return tokenizer(prompts, **padded).input_ids


def built(release, weights, **options):
    layout = {**FLUX1, "t5": ""}
    settings = dict(subfolders=layout, tokenizer=str(release), length=LENGTH, masked=False)
    return DistillT5(str(weights), str(release), **settings, **options)


@torch.no_grad()
def test_tokens_are_the_projected_states_of_the_small_encoder(release, distilled):
    folder, parts = distilled
    text = built(release, folder)
    embeddings = text.encode([drawing.PROMPT, ""])
    expected = projected(parts, ids_of(release, [drawing.PROMPT, ""]))
    torch.testing.assert_close(embeddings.tokens, expected, rtol=1e-5, atol=1e-5)
    assert text.text_spec.width == releases.T5_WIDTH
    assert bool(embeddings.mask.all())


def test_a_file_alone_reads_as_its_folder_does(release, distilled):
    folder, _ = distilled
    clip = json.loads((release / "text_encoder" / "config.json").read_text())
    t5 = json.loads((folder / "config.json").read_text())
    alone = built(release, folder / "model.safetensors", structures={"t5": t5, "clip": clip})
    tokens = built(release, folder).encode([drawing.PROMPT]).tokens
    assert torch.equal(alone.encode([drawing.PROMPT]).tokens, tokens)


@torch.no_grad()
def test_flux1_draws_with_it_as_diffusers_does(release, distilled):
    folder, parts = distilled
    small = (f"text.length={LENGTH}", f"sampler.steps={STEPS}")
    choice = ("text=distill_t5", f"text.t5='{folder}'")
    actual = drawing.project_pipeline("flux1_dev", release, HEIGHT, WIDTH, *choice, *small)
    reference = drawing.diffusers_pipeline("FluxPipeline", release)
    _, pooled, _ = reference.encode_prompt([drawing.PROMPT], max_sequence_length=LENGTH)
    noise = drawing.noise(actual)
    image = reference(
        prompt_embeds=projected(parts, ids_of(release, [drawing.PROMPT])),
        pooled_prompt_embeds=pooled,
        latents=reference._pack_latents(noise, *noise.shape),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=3.5,
        output_type="pt",
    ).images
    assert drawing.difference(drawing.draw(actual), image) <= 1e-5


def test_a_t5_without_the_projection_is_refused(release):
    with pytest.raises(ConfigError, match=r"width 16 without the trained projection to 4096"):
        built(release, release / "text_encoder_2").encode(["a"])


def test_a_narrow_t5_is_refused_for_a_wider_network(release, tmp_path):
    """FLUX.1 reads tokens of one width alone, whichever encoder gives them."""
    narrow = releases.flan_t5(tmp_path, width=NARROW)
    layout = ("text.subfolders.t5=''", f"text.tokenizer='{release}'")
    with pytest.raises(SpecMismatch, match=r"16.*8|8.*16"):
        drawing.project_pipeline(
            "flux1_dev", release, HEIGHT, WIDTH, f"text.t5='{narrow}'", *layout
        )
