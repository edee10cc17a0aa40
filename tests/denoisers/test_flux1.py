import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases_flux1
from tests.releases import CLIP_WIDTH, T5_WIDTH
from tests.weights.flux1_original import to_original
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import flux1_layout
from tinyflux_pl.denoisers.flux1 import Flux1Denoiser, build
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import LinearPath

LATENTS, TEXT, PATH = LatentSpec(16, 8), TextSpec(T5_WIDTH, 6, CLIP_WIDTH), LinearPath(noise_at=1)
T = torch.tensor([0.3, 0.9])


def small(variant="dev", **options):
    return Flux1Denoiser(releases_flux1.transformer(variant), LATENTS, TEXT, PATH, **options)


def words(length=6):
    embeddings = TextEmbeddings(
        torch.randn(2, length, T5_WIDTH), torch.ones(2, length).bool(), torch.randn(2, CLIP_WIDTH)
    )
    return Conditioning(embeddings, embedded_guidance=torch.tensor([3.5, 1.0]))


@pytest.fixture
def x():
    return torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))


def reference(net, image_latents, cond, pictures=(), guidance=True):
    """The network called with FluxKontextPipeline's own packing and ids; (B, C, H, W) out."""
    from diffusers import FluxKontextPipeline as Flux

    tokens, ids = [], []
    for k, picture in enumerate((image_latents, *pictures)):
        height, width = picture.shape[-2:]
        tokens.append(Flux._pack_latents(picture, *picture.shape))
        latent_ids = Flux._prepare_latent_image_ids(
            2, height // 2, width // 2, "cpu", torch.float32
        )
        latent_ids[:, 0] = k
        ids.append(latent_ids)
    out = net(
        hidden_states=torch.cat(tokens, 1),
        encoder_hidden_states=cond.text.tokens,
        pooled_projections=cond.text.pooled,
        timestep=T,
        guidance=cond.embedded_guidance if guidance else None,
        img_ids=torch.cat(ids),
        txt_ids=torch.zeros(cond.text.tokens.shape[1], 3),
    ).sample
    height, width = image_latents.shape[-2:]
    return Flux._unpack_latents(out[:, : height * width // 4], height * 8, width * 8, 8)


@pytest.mark.parametrize("variant", ["dev", "schnell"])
@torch.no_grad()
def test_the_denoiser_returns_the_output_of_its_network(variant, x):
    model, cond = small(variant), words()
    assert isinstance(model, Denoiser) and model.reads_guidance == (variant == "dev")
    expected = reference(releases_flux1.transformer(variant), x, cond, guidance=variant == "dev")
    torch.testing.assert_close(model(x, T, cond).sample, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_references_join_the_sequence_with_their_ids_and_are_removed_from_the_output(x):
    model, cond = small(), words()
    pictures = (torch.randn(2, 16, 6, 4), torch.randn(2, 16, 2, 2))
    with_references = Conditioning(
        cond.text, embedded_guidance=cond.embedded_guidance, references=pictures
    )
    expected = reference(releases_flux1.transformer(), x, cond, pictures)
    torch.testing.assert_close(model(x, T, with_references).sample, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model(x, T, cond).sample, expected, atol=1e-3)


@torch.no_grad()
def test_an_inpaint_mask_is_concatenated_to_the_channels(x):
    model, cond = small("fill"), words()
    inpaint = torch.randn(2, 16 + 64, 4, 6)
    with_mask = Conditioning(cond.text, embedded_guidance=cond.embedded_guidance, inpaint=inpaint)
    from diffusers import FluxFillPipeline as Fill

    packed = Fill._pack_latents(inpaint[:, :16], 2, 16, 4, 6)
    mask = Fill._pack_latents(inpaint[:, 16:], 2, 64, 4, 6)
    assert packed.shape[-1] + mask.shape[-1] + 64 == 384
    out = releases_flux1.transformer("fill")(
        hidden_states=torch.cat([Fill._pack_latents(x, 2, 16, 4, 6), packed, mask], 2),
        encoder_hidden_states=cond.text.tokens,
        pooled_projections=cond.text.pooled,
        timestep=T,
        guidance=cond.embedded_guidance,
        img_ids=Fill._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32),
        txt_ids=torch.zeros(6, 3),
    ).sample
    expected = Fill._unpack_latents(out, 32, 48, 8)
    torch.testing.assert_close(model(x, T, with_mask).sample, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_text_padding_is_kept_because_the_network_attends_to_it(x):
    model, cond = small(), words(4)
    padded = Conditioning(cond.text.padded(6), embedded_guidance=cond.embedded_guidance)
    torch.testing.assert_close(model(x, T, cond).sample, model(x, T, padded).sample, rtol=0, atol=0)


@torch.no_grad()
def test_the_guidance_input_defaults_to_the_training_value(x):
    model, cond = small(training_guidance=2.0), words()
    explicit = Conditioning(cond.text, embedded_guidance=torch.full((2,), 2.0))
    torch.testing.assert_close(
        model(x, T, Conditioning(cond.text)).sample, model(x, T, explicit).sample, rtol=0, atol=0
    )
    assert not torch.allclose(model(x, T, cond).sample, model(x, T, explicit).sample, atol=1e-4)


@torch.no_grad()
def test_times_stay_in_fp32_for_a_bf16_network(x):
    times = torch.tensor([0.9, 0.9 + 1 / 1024])  # one number in bf16
    net = releases_flux1.transformer().to(torch.bfloat16)
    seen = []
    model = Flux1Denoiser(net, LATENTS, TEXT, PATH)
    net.time_text_embed.time_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(x, times, words())
    assert seen[0].dtype == torch.float32 and seen[0].tolist() == (times * 1000).tolist()
    assert seen[1].tolist() == [3500.0, 1000.0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Flux1Denoiser(releases_flux1.transformer(), LatentSpec(4, 8), TEXT, PATH),
            "latent channels is 16",
        ),
        (
            lambda: Flux1Denoiser(
                releases_flux1.transformer(), LATENTS, TextSpec(7, 6, CLIP_WIDTH), PATH
            ),
            "text width",
        ),
        (
            lambda: Flux1Denoiser(
                releases_flux1.transformer(), LATENTS, TextSpec(T5_WIDTH, 6, 7), PATH
            ),
            "pooled width",
        ),
        (
            lambda: Flux1Denoiser(releases_flux1.transformer(), LATENTS, TEXT, LinearPath()),
            "noise at t = 1",
        ),
    ],
)
def test_parts_of_another_release_are_refused(make, says):
    with pytest.raises(SpecMismatch, match=says):
        make()


def test_an_inpaint_mask_is_required_by_fill_and_refused_elsewhere(x):
    cond = words()
    inpaint = Conditioning(cond.text, inpaint=torch.zeros(2, 80, 4, 6))
    for model, inputs, says in (
        (small(), inpaint, "does not inpaint"),
        (small("fill"), cond, "was given no masked picture"),
        (small("fill"), Conditioning(cond.text, inpaint=torch.zeros(2, 17, 4, 6)), "17 channels"),
    ):
        with pytest.raises(ConfigError, match=says):
            model(x, T, inputs)


@torch.no_grad()
def test_the_denoiser_is_rebuilt_from_its_config(x):
    model = small("kontext", reference_size="preferred", training_guidance=3.0)
    again = build_denoiser("flux1", model.config_dict(), PATH)
    again.load_state_dict(model.state_dict())
    assert again.config_dict() == model.config_dict() and again.reference_size == "preferred"
    cond = words()
    torch.testing.assert_close(
        again.eval()(x, T, cond).sample, model(x, T, cond).sample, rtol=0, atol=0
    )


def test_lora_targets_name_every_linear_layer_of_attention_and_mlp():
    from fnmatch import fnmatch

    linear = {n for n, m in small().net.named_modules() if isinstance(m, torch.nn.Linear)}
    hit = {n for n in linear if any(fnmatch(n, pattern) for pattern in Flux1Denoiser.lora_targets)}
    assert all(any(fnmatch(n, pattern) for n in linear) for pattern in Flux1Denoiser.lora_targets)
    assert {n for n in linear if ".attn." in n} <= hit and not any(
        "norm" in n or "embed" in n for n in hit
    )


def test_original_keys_are_mapped_as_by_diffusers():
    """Diffusers' converter splits rows of 3072; tensors of full height and zero width pass both."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    full = {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
    }
    with torch.device("meta"):
        from diffusers import FluxTransformer2DModel

        shapes = {
            k: v.shape
            for k, v in FluxTransformer2DModel(**full, guidance_embeds=True).state_dict().items()
        }
    thin = {key: torch.randn(shape[0], *([2] * (len(shape) - 1))) for key, shape in shapes.items()}
    original = to_original(thin)
    assert "double_blocks.1.img_attn.norm.query_norm.scale" in original and len(original) < len(
        thin
    )
    converted = convert_flux_transformer_checkpoint_to_diffusers(dict(original))
    for keys in (converted, flux1_layout.to_diffusers(original)):
        assert keys.keys() == thin.keys() and all(torch.equal(keys[key], thin[key]) for key in thin)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@torch.no_grad()
def test_a_single_file_in_the_original_layout_equals_the_folder(tmp_path, x, prefix):
    original = to_original(releases_flux1.transformer().state_dict())
    save_file(
        {prefix + key: value for key, value in original.items()}, tmp_path / "flux1-dev.safetensors"
    )
    options = dict(
        structure=releases_flux1.STRUCTURE,
        weights=str(tmp_path / "flux1-dev.safetensors"),
        dtype="float32",
    )
    model, cond = build(LATENTS, TEXT, PATH, **options), words()
    torch.testing.assert_close(model(x, T, cond).sample, small()(x, T, cond).sample, rtol=0, atol=0)
    model.net.save_pretrained(tmp_path / "again")
    assert (
        load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors").keys()
        == model.net.state_dict().keys()
    )
