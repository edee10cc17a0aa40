"""The matrix of families and methods: each cell trains, saves, resumes, reloads and draws, or its
reason to refuse stands in docs/families.md.
"""

import re

import pytest
import torch

from tests import releases_flux1, releases_flux2, releases_stability
from tests.app.runs import SHAPES, SMALLEST, run, settings
from tests.house.source import ROOT
from tinyflux_pl.app.build_pipeline import pipeline
from tinyflux_pl.checkpoints import directory

STEPS = 2
COMMON = (
    *SHAPES,
    "optimizer=adamw",
    "optimizer.lr=0.01",  # of zero-initialised gates a smaller step leaves nothing to an adapter
    "schedule=constant",
    "schedule.warmup_steps=0",
    "hardware.precision=32-true",
    "hardware.batch_size=2",
    "callbacks.validation.every_steps=0",
    "callbacks.preview.count=1",
    "callbacks.checkpoint.every_steps=1",
    "callbacks.checkpoint.keep=9",
    "data.evaluation_prompts=0",
    "sampler.steps=1",
    f"steps={STEPS}",
)
CORE = (
    "model=flux_core",
    "model.hidden_size=16",
    "model.num_heads=1",
    "model.axes_dim=[4,6,6]",
    "model.depth=1",
    "model.depth_single_blocks=1",
)
METHODS = ("full", "lora")


RELEASES = {
    "sdxl": ("sdxl", releases_stability.sdxl, ()),
    "flux1": ("flux1_dev", releases_flux1.flux1, ("text.length=16",)),
    "flux2": (
        "flux2_klein_4b",
        lambda folder: releases_flux2.flux2(folder, guided=False),
        ("text.length=64", "text.layers=[1,2,4]"),
    ),
    "sd3": ("sd35_medium", releases_stability.sd35, ()),
    "flux3": ("flux3", releases_flux2.flux3, ("text.length=64", "text.layers=[1,2,4]")),
}
FAMILIES = ("tinyflux", "flux_core", *RELEASES)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A project's folder, and the words of a family's small network: a release, if it has one."""
    name, place = request.param, tmp_path_factory.mktemp(request.param)
    if name == "tinyflux":
        return place, SMALLEST
    if name == "flux_core":
        return place, (*CORE, "text.width=16")
    model, save, small = RELEASES[name]
    save(place / "release")
    words = (f"model={model}", f"model.weights='{place}/release'", "model.dtype=float32", *small)
    return place, words


def step(place, name, number=STEPS):
    return directory.read(place / "outputs" / name / "checkpoints" / f"step_{number:07d}")


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_of_the_matrix(family, method):
    place, network = family
    words = (*network, *COMMON, f"method={method}")
    if method == "lora":
        words += ("method.rank=2",)
        if "model.weights" not in str(network):  # a family of this project: full came first
            words += (f"init='{place}/outputs/full'",)
    run("train", place, *words, f"run={method}")
    early, late = step(place, method, 1), step(place, method)
    before, after = early.weights("raw"), late.weights("raw")
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    if method == "lora":
        # a part behind a gate that is still exactly zero has no gradient yet
        assert len(moved) > len(after) / 2 and all(".lora_" in key for key in after)
        assert late.config["base"]["place"]
    else:
        assert not any(".lora_" in key for key in after) and len(moved) > len(after) / 2
    run("train", place, *words, f"run={method}_again", f"resume='{early.path}'")
    again = step(place, f"{method}_again").weights("raw")
    assert all(torch.equal(again[key], after[key]) for key in after)
    asked = (f"checkpoint='{place}/outputs/{method}'", "prompt='a red circle'")
    exact = ("hardware.precision=32-true", "sampler.steps=1")
    built = pipeline(settings("generate", place, *asked, *exact))
    picture = built.sampler.images(built.denoiser, ["a red circle"], seed=1)
    assert picture.isfinite().all()
    held = built.denoiser.state_dict()
    averaged = late.weights("averaged")
    assert all(torch.equal(held[key], averaged[key]) for key in averaged)


def test_the_documented_matrix_has_every_cell_and_no_other():
    text = (ROOT / "docs" / "families.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w[^|]*) \| (\w[^|]*) \|$", text, re.M)
    documented = {row[0]: row[1:] for row in rows if row[0] in FAMILIES}
    assert documented.keys() == set(FAMILIES)
    assert all(cell.strip() == "trains" for cells in documented.values() for cell in cells)
