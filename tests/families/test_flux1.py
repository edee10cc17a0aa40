"""FLUX.1 from disk to image equals diffusers' pipelines on equal weights, noise and prompt."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests import releases_flux1
from tests.families import drawing, table

HEIGHT, WIDTH, STEPS = 32, 48, 3
LENGTH = releases_flux1.TEXT_LENGTH
SIZE = dict(
    height=HEIGHT,
    width=WIDTH,
    num_inference_steps=STEPS,
    max_sequence_length=LENGTH,
    output_type="pt",
)
SMALL = (f"text.length={LENGTH}", f"sampler.steps={STEPS}")
SCHNELL = {**releases_flux1.STRUCTURE, **releases_flux1.VARIANTS["schnell"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    saved = {}

    def of(variant):
        if variant not in saved:
            saved[variant] = releases_flux1.flux1(tmp_path_factory.mktemp(variant), variant)
        return saved[variant]

    return of


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("pictures") / "photo, with a comma.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).resize((53, 37)).save(file)
    return file


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    file = tmp_path_factory.mktemp("pictures") / "mask.png"
    mask = np.zeros((37, 53), np.uint8)
    mask[9:30, 20:41] = 255
    Image.fromarray(mask).save(file)
    return file


def packed(latents):
    from diffusers import FluxPipeline

    return FluxPipeline._pack_latents(latents, *latents.shape)


@pytest.mark.parametrize(
    ("variant", "guided"), [("dev", dict(guidance_scale=3.5)), ("schnell", {})]
)
def test_text_to_image_equals_diffusers(folder, variant, guided):
    built = drawing.project_pipeline(f"flux1_{variant}", folder(variant), HEIGHT, WIDTH, *SMALL)
    reference = drawing.diffusers_pipeline("FluxPipeline", folder(variant))
    image = reference(
        prompt=drawing.PROMPT, latents=packed(drawing.noise(built)), **SIZE, **guided
    ).images
    table.check(f"flux1_{variant}", drawing.difference(drawing.draw(built), image))


def test_true_guidance_equals_diffusers(folder):
    built = drawing.project_pipeline(
        "flux1_dev", folder("dev"), HEIGHT, WIDTH, *SMALL, "guidance.scale=2.5"
    )
    reference = drawing.diffusers_pipeline("FluxPipeline", folder("dev"))
    options = dict(guidance_scale=3.5, true_cfg_scale=2.5, negative_prompt="blue")
    image = reference(
        prompt=drawing.PROMPT, latents=packed(drawing.noise(built)), **SIZE, **options
    ).images
    assert drawing.difference(drawing.draw(built, negative_prompt="blue"), image) <= table.LARGEST


def test_each_component_equals_diffusers(folder):
    built = drawing.project_pipeline("flux1_dev", folder("dev"), HEIGHT, WIDTH, *SMALL)
    reference = drawing.diffusers_pipeline("FluxPipeline", folder("dev"))
    tokens, pooled, ids = reference.encode_prompt(
        [drawing.PROMPT, "red"], max_sequence_length=LENGTH
    )
    embeddings = built.sampler.text.encode([drawing.PROMPT, "red"])
    assert not ids.any() and bool(embeddings.mask.all())
    torch.testing.assert_close(
        (embeddings.tokens, embeddings.pooled), (tokens, pooled), rtol=1e-5, atol=1e-5
    )
    image = torch.rand(1, 3, HEIGHT, WIDTH) * 2 - 1
    mode = (reference.vae.encode(image).latent_dist.mode() - 0.1159) * 0.3611
    torch.testing.assert_close(built.sampler.codec.encode(image), mode, rtol=1e-5, atol=1e-5)
    actual, expected = built.denoiser.net.state_dict(), reference.transformer.state_dict()
    assert actual.keys() == expected.keys() and all(
        torch.equal(actual[key], expected[key]) for key in actual
    )


def test_kontext_equals_diffusers(folder, picture):
    options = (*SMALL, "model.reference_size=as_is", f"reference='{picture}'")
    built = drawing.project_pipeline("flux1_kontext", folder("kontext"), HEIGHT, WIDTH, *options)
    reference = drawing.diffusers_pipeline("FluxKontextPipeline", folder("kontext"))
    edited = dict(
        image=Image.open(picture), max_area=HEIGHT * WIDTH, _auto_resize=False, guidance_scale=2.5
    )
    image = reference(
        prompt=drawing.PROMPT, latents=packed(drawing.noise(built)), **SIZE, **edited
    ).images
    table.check("flux1_kontext", drawing.difference(drawing.draw(built), image))


def test_fill_equals_diffusers(folder, picture, mask):
    options = (*SMALL, f"image='{picture}'", f"mask='{mask}'")
    built = drawing.project_pipeline("flux1_fill", folder("fill"), HEIGHT, WIDTH, *options)
    reference = drawing.diffusers_pipeline("FluxFillPipeline", folder("fill"))
    filled = dict(image=Image.open(picture), mask_image=Image.open(mask), guidance_scale=30.0)
    image = reference(
        prompt=drawing.PROMPT, latents=packed(drawing.noise(built)), **SIZE, **filled
    ).images
    table.check("flux1_fill", drawing.difference(drawing.draw(built), image))


def test_generate_accepts_a_folder_and_a_single_original_file(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    from tests.app.runs import run
    from tests.weights.flux1_original import to_original

    release = folder("schnell")
    overrides = (
        "model=flux1_schnell",
        "prompt='a red circle'",
        "height=32",
        "width=48",
        "sampler.steps=1",
        *SMALL[:1],
    )
    run(
        "generate",
        tmp_path,
        *overrides,
        *drawing.EXACT,
        f"model.weights='{release}'",
        f"output='{tmp_path / 'a'}'",
    )
    tensors = load_file(release / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(to_original(tensors), tmp_path / "flux1-schnell.safetensors")
    structure = [
        f"model.structure.{key}={str(list(v) if isinstance(v, tuple) else v).lower()}"
        for key, v in SCHNELL.items()
    ]
    alone = (
        f"model.weights='{tmp_path / 'flux1-schnell.safetensors'}'",
        f"release.weights='{release}'",
        *structure,
    )
    run("generate", tmp_path, *overrides, *drawing.EXACT, *alone, f"output='{tmp_path / 'b'}'")
    first, second = (Image.open(tmp_path / name / "image_0000.png") for name in "ab")
    assert first.size == (48, 32) and first.tobytes() == second.tobytes()
    assert '"weights": "published"' in first.text["tinyflux_pl"]


def test_a_reference_is_recorded_in_the_metadata_and_sets_the_size(folder, picture, tmp_path):
    from tests.app.runs import run

    overrides = (
        "model=flux1_kontext",
        "prompt='night'",
        "sampler.steps=1",
        "model.reference_size=as_is",
        *SMALL[:1],
    )
    where = (
        f"model.weights='{folder('kontext')}'",
        f"output='{tmp_path}'",
        f"reference=['{picture}','{picture}']",
    )
    run("generate", tmp_path, *overrides, *drawing.EXACT, *where)
    image = Image.open(tmp_path / "image_0000.png")
    assert image.size == (48, 32) and picture.name in image.text["tinyflux_pl"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=flux1_dev"], "no weights to draw from"),
        (
            ["model=flux1_dev", "model.weights=FOLDER", "reference=PICTURE"],
            "not trained on references",
        ),
        (
            ["model=flux1_dev", "model.weights=FOLDER", "strength=0.5"],
            "no picture to begin from",
        ),
        (["model=flux1_dev", "model.weights=FOLDER", "mask=PICTURE"], "mask= without image="),
        (["model=flux1_dev", "model.weights=FOLDER", "hardware.precision=16-mixed"], "overflows"),
        (["model=flux1_dev", "model.weights=FOLDER", "path=linear"], "noise at t = 1"),
        (["model=flux1_dev", "model.weights=FOLDER", "codec=pixels"], "latent channels"),
        (["model=flux1_dev", "model.weights=FOLDER", "text.dtype=float16"], "overflows"),
        (
            [
                "model=flux1_dev",
                "model.weights=FOLDER/transformer/diffusion_pytorch_model.safetensors",
            ],
            "release.weights",
        ),
    ],
)
def test_unusable_requests_are_refused_with_their_reason(
    folder, picture, tmp_path, overrides, says
):
    from tests.app.runs import run
    from tinyflux_pl.core.errors import TinyFluxError

    words = [
        line.replace("FOLDER", str(folder("dev"))).replace("=PICTURE", f"='{picture}'")
        for line in overrides
    ]
    with pytest.raises(TinyFluxError, match=says):
        run("generate", tmp_path, "prompt=x", *SMALL[:1], *words)


def test_an_unused_negative_prompt_or_embedded_guidance_is_refused(folder):
    from tinyflux_pl.core.errors import ConfigError

    built = drawing.project_pipeline("flux1_schnell", folder("schnell"), HEIGHT, WIDTH, *SMALL)
    with pytest.raises(ConfigError, match=r"guidance\.scale=1"):
        drawing.draw(built, negative_prompt="blue")
    with pytest.raises(ConfigError, match="no guidance input"):
        drawing.project_pipeline(
            "flux1_schnell", folder("schnell"), HEIGHT, WIDTH, *SMALL, "guidance=embedded"
        )
