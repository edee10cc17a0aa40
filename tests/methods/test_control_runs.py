"""Runs of method=controlnet through the real configuration: what is kept, resumed and drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.app.runs import SMALLEST, photographs, run, settings
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config import recorded_picture
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.data.images.canny import canny_map
from tinyflux_pl.data.tasks.shapes.records import Shapes

PROMPT = "a large red circle, top left"
QUIET = ("callbacks.preview.count=1", "sampler.steps=2")
SLOW = ("optimizer.lr=0.01", "schedule=constant", "schedule.warmup_steps=0")
CONTROL = (*SMALLEST, *QUIET, *SLOW, "method=controlnet", "callbacks.checkpoint.keep=9")
EXACT = ("hardware.precision=32-true", "sampler.steps=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of four steps, a branch of eight steps on it, and a map."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, *SLOW, "optimizer=adamw", "run=base", "steps=4")
    run("train", project, *CONTROL, f"init='{project}/outputs/base'", "run=control")
    picture = Shapes(split="validation", count=8, size=32, seed=0)[0].image
    Image.fromarray(picture).save(project / "picture.png")
    Image.fromarray(canny_map(picture)).save(project / "map.png")
    return project


def step(root, name, number=8):
    return directory.read(root / "outputs" / name / "checkpoints" / f"step_{number:07d}")


def drawn(root, name, *overrides):
    request = (f"checkpoint='{root}/outputs/{name}'", f"prompt='{PROMPT}'", *EXACT, *overrides)
    built = pipeline(settings("generate", root, *request))
    return built.sampler.images(built.denoiser, [PROMPT], seed=3)


def test_a_checkpoint_holds_only_the_branch_and_names_its_base(root):
    late, early = step(root, "control").weights("raw"), step(root, "control", 4).weights("raw")
    assert late and all(name.startswith("control.") for name in late)
    assert all(not torch.equal(early[n], late[n]) for n in late)
    described = step(root, "control").config
    assert described["base"]["hash"] == step(root, "base", 4).hash
    assert described["method"] == {"name": "controlnet", "config": {"depth": None}}


def test_a_resumed_run_ends_with_the_same_bits(root):
    start = f"init='{root}/outputs/base'"
    run("train", root, *CONTROL, start, "run=broken", "steps=4", "schedule.total_steps=8")
    run("train", root, *CONTROL, start, "run=broken", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = step(root, "control").weights(which), step(root, "broken").weights(which)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_strength_zero_equals_the_base_and_the_map_changes_the_image(root):
    map_ = f"control='{root}/map.png'"
    base = drawn(root, "base")
    assert torch.equal(drawn(root, "control", map_, "control_strength=0"), base)
    full = drawn(root, "control", map_)
    assert not torch.equal(full, base)
    edges = drawn(root, "control", f"control='{root}/picture.png'", "control_hint=canny")
    assert torch.equal(full, edges)


def test_image_metadata_names_the_map_and_reproduces_the_image(root, capsys):
    words = (f"checkpoint='{root}/outputs/control'", f"prompt='{PROMPT}'", *EXACT)
    map_ = f"control='{root}/map.png'"
    run("generate", root, *words, map_, "control_strength=0.5", "run=first", "grid=0")
    picture = next((root / "outputs" / "first").glob("*.png"))
    assert recorded_picture.read(str(picture))["control"] == {"hint": "given", "strength": 0.5}
    again = f"from_image='{picture}'"
    with pytest.raises(ConfigError, match="drawn from pictures"):
        run("generate", root, again, "run=second")
    capsys.readouterr()
    run("generate", root, again, map_, "run=second")
    assert "same" in capsys.readouterr().out


def test_the_command_that_closes_a_run_draws_after_a_map(root):
    results = files.read_object(root / "outputs" / "control" / "results.json")
    (word,) = results["beside"]
    assert word.startswith("control=")
    assert drawn(root, "control", f"control='{word.removeprefix('control=')}'").isfinite().all()


def test_sampling_without_a_map_or_with_one_of_another_size_is_refused(root):
    with pytest.raises(ConfigError, match="needs a map"):
        drawn(root, "control")
    Image.new("RGB", (48, 32)).save(root / "wide.png")
    with pytest.raises(ConfigError, match=r"the map is 48 x 32, and 32 x 32 are drawn"):
        drawn(root, "control", f"control='{root}/wide.png'")
    with pytest.raises(ConfigError, match="reads no maps"):
        drawn(root, "base", f"control='{root}/map.png'")
    with pytest.raises(ConfigError, match="there is no map"):
        drawn(root, "control", "control_strength=0.5")
    with pytest.raises(ConfigError, match="does not work with it"):
        drawn(root, "control", f"control='{root}/map.png'", f"image='{root}/picture.png'")


def test_a_branch_is_neither_an_adapter_nor_a_base(root):
    with pytest.raises(CheckpointMismatch, match="no adapter"):
        drawn(root, "base", f"lora='{root}/outputs/control'")
    with pytest.raises(CheckpointMismatch, match="holds an adapter of"):
        run("train", root, *CONTROL, f"init='{root}/outputs/control'", "run=second")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data.hint=null",), "learns from maps"),
        (("method=full", "data.hint=canny"), "nothing reads the maps"),
    ],
)
def test_missing_or_unread_maps_are_refused_before_creating_files(root, words, says):
    with pytest.raises(ConfigError, match=says):
        run("train", root, *CONTROL, f"init='{root}/outputs/base'", "run=none", *words)
    assert not (root / "outputs" / "none").exists()


def test_photographs_with_map_files_train(root, tmp_path):
    pictures = photographs(tmp_path / "pictures", ("astronaut", "coffee", "chelsea", "rocket"))
    (tmp_path / "maps").mkdir()
    for file in [*pictures.glob("*.png"), *pictures.glob("*.jpg")]:
        with Image.open(file) as opened:
            grey = np.asarray(opened.convert("L").convert("RGB"))
        Image.fromarray(grey).save(tmp_path / "maps" / f"{file.stem}.png")
    data = ("data=folder", f"data.root='{pictures}'", f"data.hint='{tmp_path}/maps'")
    size = ("data.image_size=32", "data.validation_fraction=0.3")
    start = f"init='{root}/outputs/base'"
    run("train", root, *CONTROL, *data, *size, start, "run=given", "steps=2")
    assert step(root, "given", 2).weights("raw")
