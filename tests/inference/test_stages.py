"""Stages: a part is there in its own stage, gone after it, and the picture is the same."""

import numpy as np
import torch
from PIL import Image

from tests.app.runs import run
from tests.denoisers.test_conformance import SMALL, asked
from tinyflux_pl.engine.placement import SEQUENTIAL
from tinyflux_pl.inference.stages import Stages, offload_blocks


class Part:
    """Notes what it is asked to do."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def to(self, device):
        self.log.append(f"{self.name} to {device}")
        return self

    def free(self):
        self.log.append(f"{self.name} freed")


def test_parts_come_and_go_with_their_stages():
    log = []
    parts = [Part(name, log) for name in ("denoiser", "codec", "text")]
    stages = Stages(*parts, torch.device("cpu"), SEQUENTIAL)
    log.clear()
    for name in ("text", "text", "denoise", "decode"):
        stages(name)
    stages.end()
    assert log == ["text freed", "denoiser to cpu", "denoiser to cpu", "codec freed"]
    assert set(stages.growth) <= {"text", "denoise", "decode"}


def test_a_sequential_drawing_is_the_resident_one(tmp_path, capsys):
    pictures = []
    for placement in ("resident", "sequential"):
        folder = tmp_path / placement
        line = ("model=flux2_klein_4b", "simulate=true", "prompt=red", "sampler.steps=2")
        run("generate", tmp_path, *line, f"output='{folder}'", f"engine.placement={placement}")
        pictures.append(np.asarray(Image.open(folder / "image_0000.png")))
    assert np.array_equal(*pictures)
    assert "stage denoise: memory rose by" in capsys.readouterr().out


def test_a_network_whose_blocks_come_in_turn_predicts_the_same():
    torch.manual_seed(0)
    denoiser = SMALL["flux1"]().eval()
    x, t, cond = asked(denoiser)
    with torch.no_grad():
        before = denoiser(x, t, cond).sample
        offload_blocks(denoiser.net, torch.device("cpu"))
        assert torch.equal(denoiser(x, t, cond).sample, before)


def test_a_stored_prompt_wakes_no_encoder_and_gives_the_same_picture(tmp_path, monkeypatch):
    line = ("model=flux1_schnell", "simulate=true", "prompt=red", "sampler.steps=2")
    line = (*line, f"engine.prompts='{tmp_path / 'prompts'}'")
    run("generate", tmp_path, *line, f"output='{tmp_path / 'first'}'")
    monkeypatch.setattr("tinyflux_pl.text.simulation.encoder", None)
    run("generate", tmp_path, *line, f"output='{tmp_path / 'again'}'")
    first, again = (Image.open(tmp_path / name / "image_0000.png") for name in ("first", "again"))
    assert np.array_equal(np.asarray(first), np.asarray(again))
