"""Small runs on image pairs: cached, trained, previewed with references and sampled."""

import json
import shlex

import pytest
from PIL import Image

from tests import releases_flux1
from tests.app.runs import run
from tests.data.records.test_image_pairs import mask, picture

SIDE = (32, 32)


def pairs(root, with_mask):
    for i in range(6):
        picture(root / f"p{i}_target.png", i, SIDE)
        (root / f"p{i}_caption.txt").write_text("a red circle")
        if with_mask:
            mask(root / f"p{i}_mask.png", (2, 2, 19, 19), SIDE)
        else:
            picture(root / f"p{i}_ref.png", 30 + i, SIDE)
    return root


@pytest.mark.parametrize("variant", ["kontext", "fill"])
def test_flux1_trains_on_image_pairs_and_samples_from_images(tmp_path, variant, capsys):
    release, data = (
        releases_flux1.flux1(tmp_path / "release", variant),
        pairs(tmp_path / "data", variant == "fill"),
    )
    network = (
        f"model=flux1_{variant}",
        f"model.weights='{release}'",
        "text.length=16",
        "sampler.steps=2",
    )
    exact = ("model.dtype=float32", "text.dtype=float32", "optimizer=adamw")
    source = (
        "data=pairs",
        f"data.root='{data}'",
        "data.image_size=32",
        "data.validation_fraction=0.3",
    )
    folder_of_run = run(
        "train", tmp_path, *network, *exact, *source, "steps=2", "callbacks.preview.every_steps=2"
    )
    (checkpoint,) = (tmp_path / folder_of_run["run_dir"] / "checkpoints").glob("step_*")
    assert list((tmp_path / folder_of_run["run_dir"] / "samples").glob("*.png"))
    next_line = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")
    )
    # what the run says to do next can be done
    suggested = [word for word in shlex.split(next_line) if "=" in word]
    assert suggested[0] == f"checkpoint={checkpoint}" and "prompt=a red circle" in suggested
    words = [word for word in suggested[1:] if not word.startswith("n=")]
    where = (f"checkpoint='{checkpoint}'", f"output='{tmp_path / 'drawn'}'")
    run("generate", tmp_path, *where, *words, "height=32", "width=32")
    picture = Image.open(tmp_path / "drawn" / "image_0000.png")
    assert picture.size == SIDE
    expected = {"kontext": ["ref"], "fill": ["target", "mask"]}[variant]
    recorded_images = [
        name.split("_")[1].removesuffix(".png")
        for name, _ in json.loads(picture.info["tinyflux_pl"])["pictures"]
    ]
    assert recorded_images == expected
