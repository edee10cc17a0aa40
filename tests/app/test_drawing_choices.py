"""Seed, index, guidance and size of a sample are applied, or refused before weights are read."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import releases_stability
from tests.app.runs import run
from tests.families.drawing import EXACT
from tinyflux_pl.core.errors import ConfigError, NumericsError, TinyFluxError

DRAW = ("model=sdxl", "prompt='a red circle'", "height=32", "width=48", "sampler.steps=2", *EXACT)
NET = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    releases_stability.sdxl(folder)
    return folder


def draw(release, root, *overrides):
    folder = root / f"drawn_{len(list(root.glob('drawn_*')))}"
    run("generate", root, *DRAW, f"model.weights='{release}'", f"output='{folder}'", *overrides)
    return sorted(folder.glob("image_*.png"))


def pixels(file):
    return np.asarray(Image.open(file), int)


def recorded(file):
    return json.loads(Image.open(file).text["tinyflux_pl"])


def test_a_single_image_of_a_batch_can_be_reproduced(release, tmp_path):
    batch = draw(release, tmp_path, "n=3", "seed=5", "batch_size=1")
    (alone,) = draw(release, tmp_path, "n=1", "first=2", "seed=5", "batch_size=1")
    assert np.array_equal(pixels(alone), pixels(batch[2])) and recorded(alone)["index"] == 2
    assert not np.array_equal(pixels(alone), pixels(batch[0]))
    (in_batch,) = draw(release, tmp_path, "n=1", "first=1", "seed=5", "batch_size=3")
    assert abs(pixels(in_batch) - pixels(batch[1])).max() <= 1


@pytest.mark.parametrize("key", ["devices=2", "strategy=ddp", "batch_size=4", "accumulation=2"])
def test_how_training_is_distributed_is_refused_in_drawing(tmp_path, key):
    words = ("model=sdxl", "simulate=true", "prompt=red", f"hardware.{key}")
    with pytest.raises(ConfigError, match=f"reads no hardware.{key.partition('=')[0]}"):
        run("generate", tmp_path, *words)


def test_a_random_seed_is_printed_and_recorded(release, tmp_path, capsys):
    (first,) = draw(release, tmp_path, "seed=-1")
    seed = recorded(first)["seed"]
    assert seed >= 0 and f"seed={seed}" in capsys.readouterr().out
    (again,) = draw(release, tmp_path, f"seed={seed}")
    (other,) = draw(release, tmp_path, "seed=-1")
    assert np.array_equal(pixels(first), pixels(again)) and recorded(other)["seed"] != seed
    with pytest.raises(ConfigError, match="seed"):
        draw(release, tmp_path, "seed=-2")


def test_guidance_of_zero_samples_without_guidance(release, tmp_path):
    (zero,) = draw(release, tmp_path, "guidance.scale=0.0")
    (one,) = draw(release, tmp_path, "guidance.scale=1.0")
    assert (
        np.array_equal(pixels(zero), pixels(one))
        and recorded(zero)["settings"]["guidance"]["scale"] == 1.0
    )


def test_a_negative_prompt_without_guidance_is_refused_before_weights_are_read(
    release, tmp_path, monkeypatch
):
    from tinyflux_pl.weights import load_release as weights

    monkeypatch.setattr(weights, "fill", None)
    with pytest.raises(ConfigError, match="negative prompt does nothing"):
        draw(release, tmp_path, "guidance.scale=0.0", "negative_prompt=blue")


def test_a_nonfinite_weight_is_named(release, tmp_path):
    import shutil

    spoiled = shutil.copytree(release, tmp_path / "spoiled")
    tensors = load_file(spoiled / "unet" / NET)
    tensors["conv_out.weight"].view(-1)[0] = float("nan")
    save_file(tensors, spoiled / "unet" / NET)
    with pytest.raises(
        NumericsError, match=r"weights are not finite: net\.conv_out\.weight"
    ) as error:
        draw(spoiled, tmp_path)
    assert str(spoiled / "unet" / NET) in str(error.value.where)


def test_a_truncated_autoencoder_is_refused_before_the_network_is_read(
    release, tmp_path, monkeypatch
):
    import shutil

    from tinyflux_pl.weights import load_release as weights

    spoiled = shutil.copytree(release, tmp_path / "spoiled")
    file = spoiled / "vae" / NET
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    monkeypatch.setattr(weights, "fill", None)
    with pytest.raises(TinyFluxError, match="not a complete safetensors file") as error:
        draw(spoiled, tmp_path)
    assert str(error.value.where) == str(file)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_the_part_with_nonfinite_weights_is_named(release, tmp_path, part):
    import shutil

    spoiled = shutil.copytree(release, tmp_path / "spoiled")
    (file,) = (spoiled / part).glob("*.safetensors")
    tensors = load_file(file)
    key = next(
        key
        for key in sorted(tensors)
        if "decoder" in key or "embed_tokens" in key or "token_embedding" in key
    )
    tensors[key].fill_(float("inf"))
    save_file(tensors, file)
    with pytest.raises(
        NumericsError, match={"vae": "the picture is", "text_encoder": "text embeddings"}[part]
    ):
        draw(spoiled, tmp_path)


def test_a_size_far_from_training_is_noted_with_both_sizes(release, tmp_path, capsys):
    draw(release, tmp_path, "height=64")
    assert "warning" not in capsys.readouterr().out
    draw(release, tmp_path, "height=16", "width=24")  # of a network whose config.json says 64
    assert "24 x 16 pixels, by a network that was trained at 64 x 64" in capsys.readouterr().out


def test_the_default_size_is_that_of_the_release(release, tmp_path):
    (file,) = draw(release, tmp_path, "height=null", "width=null")
    assert pixels(file).shape == (64, 64, 3)


@pytest.mark.parametrize("plan", ["only", "check", "skip"])
def test_a_side_beyond_the_position_table_is_refused_before_weights_are_read(tmp_path, plan):
    overrides = ("model=sd35_large", f"plan={plan}", "height=3088", "width=1024", "prompt=red")
    with pytest.raises(ConfigError, match=r"3088 pixels[\s\S]*ends at 3072[\s\S]*height=3072"):
        run("generate", tmp_path, *overrides, "model.random_weights=true")
