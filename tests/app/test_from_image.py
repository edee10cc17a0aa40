"""`from_image=` reproduces an image bit for bit from its metadata alone."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.app.runs import run
from tests.app.test_simulation import TRAINED, pictures
from tinyflux_pl.config import recorded_picture
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, ImageError

SIMULATED = ("simulate=true", "sampler.steps=2", "seed=5")


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


def draw(root, *line):
    folder = root / f"drawn_{len(list(root.glob('drawn_*')))}"
    run("generate", root, f"output='{folder}'", *line)
    return sorted(folder.glob("image_*.png"))


def again(root, file, capsys, *line):
    """The picture drawn from its file alone, after the file was moved elsewhere."""
    moved = root / "elsewhere.png"
    shutil.copy(file, moved)
    (redrawn,) = draw(root, f"from_image='{moved}'", *line)
    assert "the same picture, to the bit" in capsys.readouterr().out
    assert np.array_equal(pixels(redrawn), pixels(file))
    return redrawn


@pytest.mark.parametrize(
    "name", ["flux1_dev", "flux2_klein_4b", "flux3", "sd35_medium", "sdxl", "tiny"]
)
def test_an_image_of_every_family_is_reproduced_bit_equal(tmp_path, capsys, name):
    (file,) = draw(
        tmp_path,
        f"model={name}",
        *TRAINED.get(name, ()),
        *SIMULATED,
        "prompt='a red, round circle'",
    )
    redrawn = again(tmp_path, file, capsys)
    again(tmp_path, redrawn, capsys)


def test_an_image_of_a_batch_is_reproduced_in_its_batch(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red\na much longer prompt about a circle\nblue\n")
    line = (f"prompt_file='{prompts}'", "n=2", "batch_size=4", "sampler.solver=unipc")
    files = draw(tmp_path, "model=flux1_schnell", *SIMULATED, *line)
    for file in (files[0], files[4]):
        again(tmp_path, file, capsys)


@pytest.mark.parametrize("task", ["begin", "inpaint", "fill", "refer"])
def test_an_image_sampled_from_images_is_reproduced_with_them(tmp_path, capsys, task):
    photo, mask = pictures(tmp_path)
    model, line = {
        "begin": ("sdxl", (f"image='{photo}'",)),
        "inpaint": ("flux1_dev", (f"image='{photo}'", f"mask='{mask}'")),
        "fill": ("flux1_fill", (f"image='{photo}'", f"mask='{mask}'")),
        "refer": ("flux2_klein_4b", (f"reference='{photo}'",)),
    }[task]
    strength = ("strength=0.5",) if task == "begin" else ()
    (file,) = draw(tmp_path, f"model={model}", *SIMULATED, "prompt=red", *line, *strength)
    again(tmp_path, file, capsys, *line)
    if task == "inpaint":
        kept = np.asarray(Image.open(mask).resize((64, 64))) == 0
        assert np.array_equal(pixels(file)[kept], pixels(photo)[kept])
    with pytest.raises(ConfigError, match="drawn from pictures"):
        draw(tmp_path, f"from_image='{file}'")
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64), "blue").save(other)
    changed = [word.replace("photo.png", "other.png") for word in line]
    with pytest.raises(CheckpointMismatch, match="pictures was"):
        draw(tmp_path, f"from_image='{file}'", *changed)


def rewritten(root, file, **changes):
    """The same pixels, saying something else."""
    recorded = {**recorded_picture.read(file), **changes}
    info = PngInfo()
    info.add_itxt("tinyflux_pl", json.dumps(recorded))
    Image.fromarray(pixels(file)).save(root / "other.png", pnginfo=info)
    return root / "other.png"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    return draw(root, "model=flux1_schnell", *SIMULATED, "prompt=red")[0]


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"command": ["model._target_=os.system"]}, ImageError, "plain values"),
        ({"command": ["model=../../secret"]}, ImageError, "plain values"),
        ({"command": ["model.weights=somebody"]}, ImageError, "plain values"),
        ({"command": ["text.length=${oc.env:HOME}"]}, ImageError, "plain values"),
        ({"command": ["hydra.run.dir=x"]}, ImageError, "plain values"),
        ({"command": "model=flux1_schnell"}, ImageError, "list"),
        ({"prompt": 3}, ImageError, "prompt"),
        ({"image_size": [64]}, ImageError, "size"),
        ({"together": {"prompts": ["blue"], "indices": [0]}}, ImageError, "batch"),
        ({"weights": "published", "simulated": False}, ConfigError, "published weights"),
        ({"codec": {"content": "other"}}, CheckpointMismatch, "codec"),
        ({"checkpoint": "0123456789ab", "weights": "raw"}, ConfigError, "no checkpoint"),
    ],
)
def test_altered_metadata_is_refused(tmp_path, one, changes, kind, says):
    other = rewritten(tmp_path, one, **changes)
    with pytest.raises(kind, match=says):
        draw(tmp_path, f"from_image='{other}'")


@pytest.mark.parametrize("key", ["prompt=blue", "seed=3", "sampler.steps=4", "height=32", "n=2"])
def test_keys_recorded_in_the_image_are_refused_on_the_command_line(tmp_path, one, key):
    with pytest.raises(ConfigError, match="the picture records its own"):
        draw(tmp_path, f"from_image='{one}'", key)


def test_an_image_of_another_program_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, says in (
        ("plain", "records no settings"),
        ("text", "not a PNG"),
        ("no", "no such"),
    ):
        with pytest.raises(ImageError, match=says):
            draw(tmp_path, f"from_image='{tmp_path / name}.png'")


def test_image_metadata_holds_no_absolute_folder(one):
    assert str(one.parent.parent) not in json.dumps(recorded_picture.read(one))
