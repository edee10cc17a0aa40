"""Runs on image pairs and maps over frames of several ratios: trained, drawn, resumed."""

import pytest
import torch
from PIL import Image

from tests.app import kept_compositions
from tests.app.runs import SMALLEST, run
from tests.data.records.test_framed_pairs import put
from tests.methods.test_lora_runs import step

# more of one shape than of others, which are the first in the store
SIZES = ((64, 20), (33, 32), (40, 24), (24, 40), (32, 33), (30, 32), (22, 60), (32, 30))
FRAMED = (
    *SMALLEST,
    "data.image_size=32",
    "data.buckets.enabled=true",
    "data.buckets.step=8",
    "data.validation_fraction=0.5",
    "hardware.batch_size=2",
    "sampler.steps=1",
    "callbacks.preview.count=2",
    "callbacks.validation.every_steps=0",
    "callbacks.checkpoint.every_steps=2",
    "callbacks.checkpoint.keep=9",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder each of edit pairs, fill pairs, and pictures."""
    project = tmp_path_factory.mktemp("framed")
    with kept_compositions.kept({}):
        yield _written(project)


def _written(project):
    put(project / "edit/data", "ref", SIZES)
    put(project / "fill/data", "mask", SIZES)
    pictures = put(project / "map/data", "ref", SIZES)
    for file in [*pictures.glob("*_target.png")]:
        file.with_suffix(".txt").write_text("a picture")
    for file in [*pictures.glob("*_ref.png"), *pictures.glob("*_caption.txt")]:
        file.unlink()
    return project


WORDS = {
    "edit": ("data=pairs",),
    "fill": ("data=pairs", "model.inpaint=true"),
    "map": ("data=folder", "method=controlnet"),
}


def trained(root, kind, *more):
    folder = root / kind
    run("train", folder, *FRAMED, *WORDS[kind], f"data.root={folder}/data", *more)
    return folder


@pytest.mark.parametrize("kind", WORDS)
def test_pairs_and_maps_over_frames_train_and_are_drawn_in_the_most_common_frame(root, kind):
    start = ()
    if kind == "map":
        run("train", root / kind, *SMALLEST, "data.evaluation_prompts=0", "run=base", "steps=1")
        start = (f"init='{root}/{kind}/outputs/base'",)
    folder = trained(root, kind, *start, "run=straight", "steps=4")
    (drawn, *_) = sorted((folder / "outputs" / "straight" / "samples").glob("*.png"))
    assert Image.open(drawn).size[0] > 0


def test_a_resumed_run_on_pairs_over_frames_ends_with_the_same_bits(root):
    trained(root, "edit", "run=again", "steps=2", "schedule.total_steps=4")
    folder = trained(root, "edit", "run=again", "steps=4", "resume=auto")
    one, other = (step(folder, name, 4).weights("raw") for name in ("straight", "again"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
