"""A text encoder that trains with the denoiser, through the real configuration."""

import pytest
import torch

from tests.app.runs import run, settings
from tinyflux_pl.app.components import Parts
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError

SMALL = (
    *("model=fluxflow_tiny", "model.width=16", "model.heads=2", "model.layers=1"),
    *("text=bezier", "text.width=16", "text.layers=1", "text.heads=2", "text.vocabulary=64"),
    *("path=vp", "sampler=fluxflow", "optimizer=adamw", "hardware.precision=32-true"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    run("train", root, *SMALL, "run=text", "steps=4")
    return root


def test_the_weights_are_trained_averaged_and_saved_with_the_denoiser(trained):
    saved = directory.read(trained / "outputs" / "text" / "checkpoints" / "step_0000004")
    name = "text_network.network.blocks.0.qkv.weight"
    averaged, raw = saved.weights(), saved.weights("raw")
    assert not torch.equal(averaged[name], raw[name])
    start = Parts.from_config(settings("train", trained, *SMALL)).student().state_dict()
    assert not torch.equal(raw[name], start[name])


def test_caches_hold_ids_and_no_embeddings(trained):
    shards = sorted((trained / "cache").rglob("encodings/*.safetensors"))
    assert shards
    tokens = files.read_tensors(shards[0])["text.tokens"]
    assert tokens.shape[-1] == 2
    assert torch.equal(tokens, tokens.round())


def test_pictures_are_drawn_with_the_trained_encoder(trained):
    checkpoint = trained / "outputs" / "text" / "checkpoints" / "step_0000004"
    run("generate", trained, f"checkpoint={checkpoint}", "prompt=a red circle", "n=1", "run=drawn")
    assert list((trained / "outputs" / "drawn").glob("*.png"))


def test_adapters_refuse_an_encoder_that_trains(trained):
    lora = ("method=lora", f"init={trained}/outputs/text")
    with pytest.raises(ConfigError, match="text=bezier as it is, which trains"):
        Parts.from_config(settings("train", trained, *SMALL, *lora)).check()
