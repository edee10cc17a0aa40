"""`simulate=true` draws every family's picture on random weights, the same on the same seed."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.app.runs import run
from tests.families.table import families
from tinyflux_pl.core.errors import ConfigError

# a model trained here has no codec and text encoder of its own
TRAINED = {
    name: ("codec=flux1", "text=flan_t5_clip", "path=linear", "sampler=heun", "guidance=cfg")
    for name in ("tiny",)
}
TRAINED["unet"] = ("codec=pixels", "text=hashed", "path=vp", "sampler=euler", "guidance=cfg")


def draw(tmp_path, name, *overrides):
    folder = tmp_path / f"drawn_{len(list(tmp_path.glob('drawn_*')))}"
    line = (f"model={name}", "simulate=true", "prompt='a red circle'", f"output='{folder}'")
    run("generate", tmp_path, *line, *TRAINED.get(name, ()), "sampler.steps=2", *overrides)
    with Image.open(folder / "image_0000.png") as picture:
        return np.asarray(picture), json.loads(picture.text["tinyflux_pl"])


def pictures(tmp_path):
    """A photograph and a mask of a part of it."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png"


def task_of(name, tmp_path):
    """The pictures that a family is shown: Fill needs a masked picture, Kontext a reference."""
    photo, mask = pictures(tmp_path)
    if name == "flux1_fill":
        return (f"image='{photo}'", f"mask='{mask}'", "height=64", "width=64")
    return (f"reference='{photo}'", "height=64", "width=64") if name == "flux1_kontext" else ()


@pytest.mark.parametrize("name", sorted({*families(), *TRAINED}))
def test_simulated_images_are_a_function_of_the_seed(tmp_path, name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task = task_of(name, tmp_path)
    (first, metadata), (again, _) = draw(tmp_path, name, *task), draw(tmp_path, name, *task)
    assert first.shape == (64, 64, 3) and first.std() > 1
    assert np.array_equal(first, again)
    assert metadata["simulated"] is True and metadata["weights"] == "simulated"


@pytest.mark.parametrize("change", ["seed=1", "prompt='a blue square'"])
def test_seed_and_prompt_change_the_image(tmp_path, change):
    first, _ = draw(tmp_path, "flux1_dev")
    other, _ = draw(tmp_path, "flux1_dev", change)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["flux2_klein_4b", "flux3", "tiny"])
def test_references_change_the_image(tmp_path, name):
    photo, _ = pictures(tmp_path)
    plain, _ = draw(tmp_path, name, "height=64", "width=64")
    referred, _ = draw(tmp_path, name, f"reference='{photo}'", "height=64", "width=64")
    assert not np.array_equal(plain, referred)


@pytest.mark.parametrize("name", ["flux1_kontext", "flux2_klein_4b", "tiny"])
def test_a_photograph_as_reference_is_drawn_in_small(tmp_path, name):
    """FLUX.1 Kontext's own rule would make a megapixel of it."""
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "large.png")
    drawn, _ = draw(tmp_path, name, f"reference='{tmp_path / 'large.png'}'")
    assert drawn.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("checkpoint=somewhere",), "checkpoint"),
        (("plan=only",), "plan"),
        (("model.weights=somewhere",), "model.weights"),
        (("codec=as_trained",), "codec"),
    ],
)
def test_keys_unread_by_a_simulation_are_refused(tmp_path, line, says):
    with pytest.raises(ConfigError, match=says):
        draw(tmp_path, "flux1_dev", *line)
