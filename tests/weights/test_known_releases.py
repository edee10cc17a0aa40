"""The release of a file, recognised by a few shapes."""

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from tests import releases_flux1
from tests.families.table import families
from tests.house.source import ROOT
from tests.weights.flux1_original import to_original
from tinyflux_pl.config.allowlist import resolve
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.denoisers.flux1 import Flux1Denoiser
from tinyflux_pl.denoisers.registry import denoiser_class, denoiser_names
from tinyflux_pl.denoisers.sd3 import SD3Denoiser
from tinyflux_pl.weights import known_releases
from tinyflux_pl.weights.known_releases import release_of


def composed(name):
    """conf/model/<name>.yaml over those that it extends."""
    node = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml")
    below = [entry for entry in node.get("defaults", []) if isinstance(entry, str)]
    return OmegaConf.merge(*map(composed, below), node)


def of_family(target):
    module = target.rsplit(".", 1)[0]
    name = module.rsplit(".", 1)[1]
    assert name in denoiser_names()
    return denoiser_class(name).released


def full_size(name):
    """Key -> shape of the published network, in the layout of diffusers."""
    model = OmegaConf.to_container(composed(name).model)
    assert resolve(model["_target_"], "")
    return {
        k: tuple(v.shape)
        for k, v in of_family(model["_target_"]).skeleton(model["structure"]).state_dict().items()
    }


@pytest.mark.parametrize("name", families())
def test_every_family_recognises_its_release(name):
    release = release_of(full_size(name))
    assert release is not None and name in release.models
    assert release.models == (
        ("flux1_dev", "flux1_kontext") if name in ("flux1_dev", "flux1_kontext") else (name,)
    )


GUIDED = {"guidance_in.in_layer.weight": (3072, 256), "vector_in.in_layer.weight": (3072, 768)}
ORIGINAL = {
    "flux1_dev": {"img_in.weight": (3072, 64), **GUIDED},
    "flux1_schnell": {"img_in.weight": (3072, 64), "vector_in.in_layer.weight": (3072, 768)},
    "flux1_fill": {"img_in.weight": (3072, 384), **GUIDED},
    "flux2_dev": {
        "img_in.weight": (6144, 128),
        "single_stream_modulation.lin.weight": (18432, 6144),
    },
    "flux2_klein_4b": {
        "img_in.weight": (3072, 128),
        "single_stream_modulation.lin.weight": (9216, 3072),
    },
    "flux2_klein_9b": {
        "img_in.weight": (4096, 128),
        "single_stream_modulation.lin.weight": (12288, 4096),
    },
    "flux3": {"emb_in.image.weight": (3072, 128), "txt_in.weight": (3072, 20480)},
    "sd35_medium": {
        "x_embedder.proj.weight": (1536, 16, 2, 2),
        "joint_blocks.0.x_block.attn2.qkv.weight": (9, 9),
    },
    "sd35_large": {
        "x_embedder.proj.weight": (2432, 16, 2, 2),
        "joint_blocks.37.x_block.attn.qkv.weight": (9, 9),
    },
    "sdxl": {"input_blocks.0.0.weight": (320, 4, 3, 3), "label_emb.0.0.weight": (1280, 2816)},
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("name", ORIGINAL)
def test_files_in_original_layouts_are_recognised(name, prefix):
    assert name in release_of({prefix + key: shape for key, shape in ORIGINAL[name].items()}).models


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"input_blocks.0.0.weight": (320, 4, 3, 3)}, "Stable Diffusion 1"),
        (
            {"input_blocks.0.0.weight": (320, 9, 3, 3), "label_emb.0.0.weight": (1280, 2816)},
            "inpainting",
        ),
        (
            {"input_blocks.0.0.weight": (384, 4, 3, 3), "label_emb.0.0.weight": (1536, 2560)},
            "refiner",
        ),
        ({"x_embedder.proj.weight": (1536, 16, 2, 2)}, "3 medium"),
        ({**ORIGINAL["flux1_dev"], "img_in.weight": (3072, 128)}, "Canny"),
        ({"distilled_guidance_layer.in_proj.bias": (5120,), "img_in.weight": (3072, 64)}, "Chroma"),
    ],
)
def test_unsupported_related_models_are_named(shapes, says):
    release = release_of(shapes)
    assert says in release.name and not release.models


def test_unknown_weights_are_not_recognised():
    assert release_of({}) is None and release_of({"a": (1,)}) is None
    assert (
        release_of(
            {k: tuple(v.shape) for k, v in releases_flux1.transformer().state_dict().items()}
        )
        is None
    )


@pytest.fixture
def tiny(monkeypatch):
    """The tiny networks of these tests, known as if they were published."""
    width = (
        releases_flux1.STRUCTURE["num_attention_heads"]
        * releases_flux1.STRUCTURE["attention_head_dim"]
    )

    def small(shape):
        return shape and tuple(width if size == 3072 else size for size in shape)

    releases = [
        replace(r, shapes={k: small(v) for k, v in r.shapes.items()})
        for r in known_releases.RELEASES
    ]
    monkeypatch.setattr(known_releases, "RELEASES", tuple(releases))


def saved(tmp_path, variant, layout=lambda tensors: tensors):
    tensors = layout(releases_flux1.transformer(variant).state_dict())
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, tmp_path / "net.safetensors"
    )
    return str(tmp_path / "net.safetensors")


@pytest.mark.parametrize("layout", [dict, to_original])
@pytest.mark.parametrize(
    ("actual", "requested"),
    [("schnell", "dev"), ("fill", "dev"), ("dev", "schnell"), ("dev", "fill")],
)
def test_weights_of_a_sibling_model_are_refused_with_the_matching_choice(
    tiny, tmp_path, layout, actual, requested
):
    structure = {**releases_flux1.STRUCTURE, **releases_flux1.VARIANTS[requested]}
    with pytest.raises(CheckpointMismatch, match=rf"weights of FLUX\.1[\s\S]*model=flux1_{actual}"):
        Flux1Denoiser.released.load(structure, weights=saved(tmp_path, actual, layout))


def test_weights_of_another_family_are_refused_with_the_matching_choice(tiny, tmp_path):
    for layout in (dict, to_original):
        with pytest.raises(CheckpointMismatch, match=r"FLUX\.1 schnell[\s\S]*model=flux1_schnell"):
            SD3Denoiser.released.load({}, weights=saved(tmp_path, "schnell", layout))


@pytest.mark.parametrize("meta", [False, True])
def test_a_folder_of_a_sibling_model_is_refused_before_sampling(tiny, tmp_path, meta):
    releases_flux1.transformer("schnell").save_pretrained(tmp_path / "transformer")
    with (
        torch.device("meta" if meta else "cpu"),
        pytest.raises(CheckpointMismatch, match="model=flux1_schnell"),
    ):
        Flux1Denoiser.released.load(releases_flux1.STRUCTURE, weights=str(tmp_path))
    Flux1Denoiser.released.load(
        {**releases_flux1.STRUCTURE, "guidance_embeds": False}, weights=str(tmp_path)
    )


def test_a_folder_of_another_class_is_refused_by_its_name(tiny, tmp_path):
    net = releases_flux1.transformer()
    net.save_pretrained(tmp_path / "transformer")
    says = (
        r"FluxTransformer2DModel, not a SD3Transformer2DModel[\s\S]*model=flux1_dev or "
        r"model=flux1_kontext"
    )
    with pytest.raises(CheckpointMismatch, match=says):
        SD3Denoiser.released.load({}, weights=str(tmp_path))


def test_an_unrelated_config_json_next_to_a_named_file_is_ignored(tmp_path):
    file = saved(tmp_path, "dev")
    (tmp_path / "config.json").write_text('{"architectures": ["T5EncoderModel"], "d_model": 4096}')
    releases = Flux1Denoiser.released.load(releases_flux1.STRUCTURE, weights=file)
    assert releases.config["num_layers"] == 2
    with pytest.raises(CheckpointMismatch, match="describes a T5EncoderModel"):
        Flux1Denoiser.released.load(releases_flux1.STRUCTURE, weights=str(tmp_path))
