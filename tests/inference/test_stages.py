"""Stages: a part is there in its own stage, gone after it, and the picture is the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.app.runs import run, settings
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.engine.block_sizes import blocks_of
from tinyflux_pl.engine.placement import OFFLOAD, SEQUENTIAL
from tinyflux_pl.inference.stages import Stages


class Part(torch.nn.Module):
    """Records its calls."""

    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def to(self, device):
        self.log.append(f"{self.name} to {device}")
        return self

    def free(self):
        self.log.append(f"{self.name} freed")


def test_parts_are_loaded_and_freed_with_their_stages():
    log = []
    parts = [Part(name, log) for name in ("denoiser", "codec", "text")]
    stages = Stages(*parts, torch.device("cpu"), SEQUENTIAL)
    log.clear()
    for name in ("encode", "text", "text", "denoise", "decode"):
        stages(name)
    stages.end()
    denoising = ["denoiser to cpu", "denoiser to cpu"]
    assert log == ["codec freed", "text freed", *denoising, "codec freed"]
    assert set(stages.growth) <= {"encode", "text", "denoise", "decode"}


def test_sequential_sampling_equals_resident_sampling(tmp_path, capsys):
    pictures = []
    for placement in ("resident", "sequential"):
        folder = tmp_path / placement
        line = ("model=flux2_klein_4b", "simulate=true", "prompt=red", "sampler.steps=2")
        run("generate", tmp_path, *line, f"output='{folder}'", f"engine.placement={placement}")
        pictures.append(np.asarray(Image.open(folder / "image_0000.png")))
    assert np.array_equal(*pictures)
    assert "stage denoise: memory rose by" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["flux1_schnell", "flux2_klein_4b", "sd35_medium"])
def test_blocks_in_turn_draw_an_equal_image(model, tmp_path):
    line = (f"model={model}", "simulate=true", "prompt=red", "sampler.steps=2")
    built = pipeline(settings("generate", tmp_path, *line, "hardware.accelerator=cpu"))
    before = built.sampler.images(built.denoiser, ["red"])
    turns = {
        name: len(blocks_of(network)) - 1
        for name, network in built.sampler.text.skeletons().items()
    }
    offload = replace(
        OFFLOAD, in_turn=len(built.denoiser.block_stack()) - 1, text_in_turn=tuple(turns.items())
    )
    weights = {name: p.data_ptr() for name, p in built.denoiser.named_parameters()}
    built.sampler.text.free()
    placed = built.on("cpu", "32-true", offload)
    after = placed.sampler.images(placed.denoiser, ["red"])
    placed.sampler.stage.end()
    assert torch.equal(before, after)
    assert weights == {name: p.data_ptr() for name, p in built.denoiser.named_parameters()}


def test_a_stored_prompt_loads_no_encoder_and_gives_an_equal_image(tmp_path, monkeypatch):
    line = ("model=flux1_schnell", "simulate=true", "prompt=red", "sampler.steps=2")
    line = (*line, f"engine.prompts='{tmp_path / 'prompts'}'")
    run("generate", tmp_path, *line, f"output='{tmp_path / 'first'}'")
    monkeypatch.setattr("tinyflux_pl.text.simulation.encoder", None)
    run("generate", tmp_path, *line, f"output='{tmp_path / 'again'}'")
    first, again = (Image.open(tmp_path / name / "image_0000.png") for name in ("first", "again"))
    assert np.array_equal(np.asarray(first), np.asarray(again))
