"""Metadata of images of published releases: weights, parts and formats, and no local folders."""

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


def test_published_metadata_names_model_hashes_formats_and_dropped_encoders(release, tmp_path):
    text = draw(release, tmp_path, "model.dtype=float32", "text.drop_t5=true")
    metadata = json.loads(text)
    (weights,) = (release / "transformer").glob("*.safetensors")
    assert metadata["weights"] == "published" and metadata["model"]["name"] == "sd3"
    assert metadata["model"]["content"] == {weights.name: sha256(weights)[:16]}
    assert (
        metadata["model"]["dtype"] == metadata["text"]["dtype"] == "float32"
        and metadata["precision"] == "32-true"
    )
    assert metadata["text"]["drop_t5"] is True and metadata["text"]["t5_length"] == 16
    assert metadata["text"]["content"] and metadata["codec"]["content"]
    assert metadata["versions"]["torch"] and metadata["device"] == "cpu"
    for base in (release.parent, tmp_path):
        assert str(base) not in text
    assert not [
        entry
        for entry in texts(metadata)
        if isinstance(entry, str) and entry.startswith(("/", "~"))
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
def test_every_setting_that_changes_an_image_changes_its_metadata(
    release, before, tmp_path, changed, node, key
):
    after = json.loads(draw(release, tmp_path, "model.dtype=float32", changed))
    assert before[node][key] != after[node][key]


def test_the_published_hash_depends_on_the_weights(release, before, tmp_path):
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
