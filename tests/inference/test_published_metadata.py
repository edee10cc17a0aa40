"""The PNG of a published release's picture: which weights, parts and formats drew it, and no folder
of the machine.
"""

import hashlib
import json

import pytest
from PIL import Image

from tests import releases_stability
from tests.app.runs import run

DRAW = (
    "model=sd35_large",
    "prompt=red",
    "height=32",
    "width=48",
    "sampler.steps=1",
    "text.t5_length=16",
)
EXACT = ("hardware.precision=32-true", "text.dtype=float32")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somebody") / "sd35"
    releases_stability.sd35(folder)
    return folder


def draw(release, root, *overrides):
    """The metadata of the one picture, as its file holds them."""
    folder = root / f"drawn_{len(list(root.glob('drawn_*')))}"
    run(
        "generate",
        root,
        *DRAW,
        *EXACT,
        f"model.weights='{release}'",
        f"output='{folder}'",
        *overrides,
    )
    with Image.open(folder / "image_0000.png") as picture:
        return picture.text["tinyflux_pl"]


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def texts(value):
    """Every key and text of plain data."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    return [text for part in value for text in texts(part)] if isinstance(value, list) else [value]


def test_a_published_picture_names_model_content_formats_and_dropped_encoders(release, tmp_path):
    text = draw(release, tmp_path, "model.dtype=float32", "text.drop_t5=true")
    said = json.loads(text)
    (weights,) = (release / "transformer").glob("*.safetensors")
    assert said["weights"] == "published" and said["model"]["name"] == "sd3"
    assert said["model"]["content"] == {weights.name: sha256(weights)[:16]}
    assert (
        said["model"]["dtype"] == said["text"]["dtype"] == "float32"
        and said["precision"] == "32-true"
    )
    assert said["text"]["drop_t5"] is True and said["text"]["t5_length"] == 16
    assert said["text"]["content"] and said["codec"]["content"]
    assert said["versions"]["torch"] and said["device"] == "cpu"
    for place in (release.parent, tmp_path):
        assert str(place) not in text
    assert not [
        found for found in texts(said) if isinstance(found, str) and found.startswith(("/", "~"))
    ]


@pytest.fixture(scope="module")
def before(release, tmp_path_factory):
    return json.loads(draw(release, tmp_path_factory.mktemp("before"), "model.dtype=float32"))


@pytest.mark.parametrize(
    ("changed", "node", "key"),
    [
        ("model.dtype=bfloat16", "model", "dtype"),
        ("text.drop_t5=true", "text", "drop_t5"),
        ("text.t5_length=8", "text", "t5_length"),
        ("sampler.steps=2", "settings", "steps"),
    ],
)
def test_what_changes_a_published_picture_changes_its_metadata(
    release, before, tmp_path, changed, node, key
):
    after = json.loads(draw(release, tmp_path, "model.dtype=float32", changed))
    assert before[node][key] != after[node][key]


def test_the_hash_of_a_published_picture_follows_the_weights(release, before, tmp_path):
    from safetensors.torch import load_file, save_file

    (file,) = (release / "transformer").glob("*.safetensors")
    original = file.read_bytes()
    tensors = load_file(file)
    tensors["proj_out.bias"] += 1
    save_file(tensors, file)
    try:
        after = json.loads(draw(release, tmp_path))
    finally:
        file.write_bytes(original)  # the release is the module's
    assert before["model"]["content"].keys() == after["model"]["content"].keys()
    assert before["model"]["content"] != after["model"]["content"]
