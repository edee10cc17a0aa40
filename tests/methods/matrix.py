"""The matrix of families and methods: the words of each cell, and the small releases it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import releases_flux1, releases_flux2, releases_stability
from tests.app import kept_compositions
from tests.app.runs import SMALLEST, photographs, run
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.core.errors import ConfigError

STEPS = 2
SIDE = 32  # of the pictures
COMMON = (
    "optimizer=adamw",
    "optimizer.lr=0.01",  # of zero-initialised gates a smaller step leaves nothing to an adapter
    "schedule=constant",
    "schedule.warmup_steps=0",
    "hardware.precision=32-true",
    "hardware.batch_size=2",
    "callbacks.validation.every_steps=0",
    "callbacks.validation.times=[0.5]",
    "callbacks.validation.samples=1",
    "callbacks.validation.seen=false",
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
    "text.width=16",
)
SCENES = ("data.sources.shapes.train.count=16", "data.sources.shapes.validation.count=2")
SUBJECT = (
    "data=dreambooth",
    "data.root='{project}/subject'",
    "data.prompt='a photo of sks cat'",
    "data.class_prompt='a photo of a cat'",
    "data.class_count=2",
    f"data.image_size={SIDE}",
)
# method -> further words, the part that all names in a checkpoint have, words to draw with
METHODS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "full": (SCENES, "", ()),
    "lora": (("method.rank=2", *SCENES), ".lora_", ()),
    "controlnet": (SCENES, "control.", ("control='{project}/map.png'",)),
    # one step for two of the teacher's: at a step for a step, and no guidance, nothing is learnt
    "few_step": (("method.steps=1", "sampler.steps=2", *SCENES), "", ()),
    "few_step_lora": (
        ("method.steps=1", "sampler.steps=2", "method.rank=2", *SCENES),
        ".lora_",
        (),
    ),
    "textual_inversion": (
        (
            *SCENES,
            "method.word=large",
            "method.init_word=red",
            "method.vectors=2",
            "hardware.batch_size=8",  # of which some captions have the word
        ),
        "learned_word.",
        (),
    ),
    "dreambooth": (("method.rank=2", *SUBJECT), ".lora_", ()),
}
# cell -> the words of its refusal
REASONS = {("sdxl", method): "predicts epsilon" for method in ("few_step", "few_step_lora")}
RELEASES: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
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
PROJECT_FAMILIES = {"tinyflux": SMALLEST, "flux_core": CORE}
FAMILIES = (*PROJECT_FAMILIES, *RELEASES)
# two methods in one: each family trains, these also resume and draw, and ours train on two ranks
COMBINED = {"few_step_lora": (*PROJECT_FAMILIES, "flux2")}


@dataclass(frozen=True)
class Project:
    """A family in a folder of its own, with the words of its small network or release."""

    family: str
    folder: Path
    network: tuple[str, ...]

    @classmethod
    def written(cls, family: str, folder: Path) -> Project:
        """The family's release and the pictures of a subject, in a new folder."""
        for file in photographs(folder / "subject", ("chelsea", "coffee")).glob("*.txt"):
            file.unlink()  # pictures of a subject have one prompt
        if family in PROJECT_FAMILIES:
            return cls(family, folder, PROJECT_FAMILIES[family])
        model, save, small = RELEASES[family]
        save(folder / "release")
        weights = f"model.weights='{folder}/release'"
        return cls(family, folder, (f"model={model}", weights, "model.dtype=float32", *small))

    def words(self, method: str) -> tuple[str, ...]:
        """A cell's words for train.py; a network of this project starts from its run `full`."""
        further = (word.format(project=self.folder) for word in METHODS[method][0])
        starts = method != "full" and self.family in PROJECT_FAMILIES
        start = (f"init='{self.folder}/outputs/full'",) if starts else ()
        return (*self.network, *COMMON, f"method={method}", *further, *start)

    def step(self, name: str, number: int = STEPS) -> Checkpoint:
        """A run's checkpoint."""
        folder = self.folder / "outputs" / name / "checkpoints"
        return directory.read(folder / f"step_{number:07d}")

    def refuses(self, method: str) -> bool:
        """False for a cell that trains; else True, after the cell was refused for its reason."""
        reason = REASONS.get((self.family, method))
        if reason is None:
            return False
        with pytest.raises(ConfigError, match=reason):
            run("train", self.folder, *self.words(method), f"run={method}")
        return True


@contextmanager
def project(family: str, folder: Path) -> Iterator[Project]:
    """A family's project; within the block its command lines share Hydra's compositions."""
    with kept_compositions.kept({}):
        yield Project.written(family, folder)
