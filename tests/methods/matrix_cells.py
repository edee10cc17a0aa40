"""A cell of the matrix in one process: it trains, resumes, reloads and draws."""

from __future__ import annotations

import torch
from PIL import Image

from tests.app.runs import run, settings
from tests.methods.matrix import COMBINED, METHODS, SIDE, Project
from tinyflux_pl.app.drawing.build_pipeline import pipeline

PROMPT = "a red circle"


def check(project: Project, method: str) -> None:
    """Train, resume and draw in a cell; or be refused for the reason that is listed."""
    if project.refuses(method):
        return
    _trains(project, method)
    if project.family not in COMBINED.get(method, (project.family,)):
        return
    _resumes(project, method)
    _draws(project, method)


def _trains(project: Project, method: str) -> None:
    part = METHODS[method][1]
    run("train", project.folder, *project.words(method), f"run={method}")
    early, late = project.step(method, 1), project.step(method)
    before, after = early.weights("raw"), late.weights("raw")
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    # a part behind a gate that is still exactly zero has no gradient yet
    assert len(moved) > len(after) / 2 and all(part in key for key in after), sorted(after)
    if part:
        assert late.config["base"]["place"]
    else:
        assert not any(".lora_" in key or key.startswith("control.") for key in after)


def _resumes(project: Project, method: str) -> None:
    name, early = f"{method}_again", project.step(method, 1)
    run("train", project.folder, *project.words(method), f"run={name}", f"resume='{early.path}'")
    again, after = project.step(name).weights("raw"), project.step(method).weights("raw")
    assert again.keys() == after.keys()
    different = [key for key in after if not torch.equal(again[key], after[key])]
    assert not different, different


def _draws(project: Project, method: str) -> None:
    folder, further = project.folder, METHODS[method][2]
    Image.new("RGB", (SIDE, SIDE), "white").save(folder / "map.png")
    words = (f"checkpoint='{folder}/outputs/{method}'", f"prompt='{PROMPT}'")
    words += ("hardware.precision=32-true", "sampler.steps=1")
    words += tuple(word.format(project=folder) for word in further)
    built = pipeline(settings("generate", folder, *words))
    assert built.sampler.images(built.denoiser, [PROMPT], seed=1).isfinite().all()
    state, averaged = built.denoiser.state_dict(), project.step(method).weights("averaged")
    assert all(torch.equal(state[key], averaged[key]) for key in averaged)
