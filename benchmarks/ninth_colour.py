"""LoRA on a TinyFlux that was trained on shapes: a ninth colour from 24 pictures.

Beside them lie pictures of the eight colours that the base has drawn itself, on which it teaches in
every step (data=folder_prior pathway=online), so that the adapter keeps them.

python -m benchmarks.ninth_colour BASE_RUN FOLDER [train.py's words]

Writes 24 pictures of pink shapes with captions, trains method=lora on them, draws the same prompts
with and without the adapter, and prints the share of each colour that a verifier of nine colours
reads back. A table.json and a sheet of pictures are left in FOLDER.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tinyflux_pl.data.tasks.shapes import render

NEW, RGB = "pink", (250, 120, 190)
EIGHT = render.COLOURS
render.PALETTE[NEW] = RGB  # before the modules that take their colours from it are imported
render.COLOURS = tuple(render.PALETTE)

from tinyflux_pl.core.console_log import warnings_above_bars  # noqa: E402
from tinyflux_pl.data.tasks.shapes.grammar import (  # noqa: E402
    POSITIONS,
    RADII,
    SEEN_PAIRS,
    SIZES,
    caption_of,
)
from tinyflux_pl.data.tasks.shapes.verifier import ShapeVerifier  # noqa: E402
from tinyflux_pl.inference.adapters import with_adapters  # noqa: E402
from tinyflux_pl.inference.pipeline import Pipeline  # noqa: E402
from tinyflux_pl.sampling.grid import Grid  # noqa: E402
from tinyflux_pl.sampling.picture import to_picture  # noqa: E402

PICTURES, PRIOR, SIDE, EACH, STEPS = 24, 192, 32, 24, 12
ROOT = Path(__file__).resolve().parents[1]


def attributes(colour: str, i: int) -> dict[str, str]:
    """Shape, position and size of the i-th picture: every choice comes round."""
    shapes = [s for c, s in SEEN_PAIRS if c == colour] or list(render.SHAPES)
    choices = {"shape": shapes, "position": list(POSITIONS), "size": list(SIZES)}
    strides = {"shape": 1, "position": 4, "size": 2}
    picked = {
        name: all_[(i * strides[name] + i // 5) % len(all_)] for name, all_ in choices.items()
    }
    return {"colour": colour, **picked}


def write_pictures(folder: Path) -> None:
    """PICTURES pictures of the new colour, each with its caption."""
    folder.mkdir(parents=True)
    for i in range(PICTURES):
        said = attributes(NEW, i)
        x, y = POSITIONS[said["position"]]
        shape = render.ShapeInstance(
            said["shape"], np.array(RGB, np.float32), x, y, RADII[said["size"]]
        )
        pixels, _ = render.draw([shape], SIDE, 232.0)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(caption_of(said, i % 5))


@torch.no_grad()
def write_prior(pipeline: Pipeline, folder: Path) -> None:
    """PRIOR pictures of the eight colours as the base draws them, with its own steps."""
    folder.mkdir()
    captions = [
        caption_of(attributes(EIGHT[i % len(EIGHT)], 1000 + i), i % 5) for i in range(PRIOR)
    ]
    images = pipeline.sampler.images(pipeline.denoiser, captions, seed=2)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        to_picture(image).save(folder / f"prior_{i:03d}.png")
        (folder / f"prior_{i:03d}.txt").write_text(caption)


def prompts(colour: str) -> list[str]:
    """EACH prompts of a colour, none of them a picture's caption."""
    return [caption_of(attributes(colour, 100 + 7 * i), (i + 2) % 5) for i in range(EACH)]


@torch.no_grad()
def measure(pipeline: Pipeline, sheet: Path) -> dict[str, dict[str, float]]:
    """Colour -> shares of right colours, and of pictures with every claim."""
    verifier, rows, grid = ShapeVerifier(), {}, Grid(3 * len(render.COLOURS))
    for colour in (*EIGHT, NEW):
        asked = prompts(colour)
        images = pipeline.sampler.images(pipeline.denoiser, asked, seed=1)
        checked = verifier.check(images, asked)
        rows[colour] = {claim: float(checked[claim].float().mean()) for claim in ("colour", "all")}
        for image, prompt in zip(images[:3], asked[:3], strict=True):
            grid.add(to_picture(image), prompt)
    grid.sheet(3).save(sheet)
    return rows


def pipeline_of(base: Path, *adapters: Path) -> Pipeline:
    """The base, with an adapter or without."""
    made = Pipeline.from_checkpoint(base).adjusted(sampler={"steps": STEPS})
    return with_adapters(made, [(adapter, 1.0) for adapter in adapters])


@warnings_above_bars()
def main(base: Path, folder: Path, *words: str) -> None:
    """Pictures, run, table."""
    write_pictures(folder / "pictures")
    write_prior(Pipeline.from_checkpoint(base), folder / "prior")
    run = base.resolve()
    teacher = ["experts=denoiser", "pathway=online", "teacher=checkpoint"]
    teacher += [f"teacher.checkpoint={run}"]
    network = ["model=tiny", "method=lora", f"init={run}", *teacher]
    data = [
        "data=folder_prior",
        f"data.root={(folder / 'pictures').resolve()}",
        f"data.prior_root={(folder / 'prior').resolve()}",
        f"data.image_size={SIDE}",
    ]
    quiet = ["callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0"]
    off = ["preflight=false", f"paths.root={folder.resolve()}", "run=pink", *quiet]
    command = [sys.executable, str(ROOT / "train.py"), *network, *data, *off, *words]
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, cwd=ROOT)
    spent = os.times().children_user - before.children_user
    table = {
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(spent),
        "words": words,
        "base": measure(pipeline_of(base), folder / "base.png"),
        "with": measure(pipeline_of(base, folder / "outputs" / "pink"), folder / "with.png"),
    }
    (folder / "table.json").write_text(json.dumps(table, indent=1))
    for colour in (*EIGHT, NEW):
        cells = [table[k][colour][claim] for claim in ("colour", "all") for k in ("base", "with")]
        print(colour.ljust(8), *(f"{cell:5.0%}" for cell in cells))
    for claim in ("colour", "all"):
        means = [sum(table[k][c][claim] for c in EIGHT) / len(EIGHT) for k in ("base", "with")]
        print(f"eight, {claim}:", *(f"{mean:.1%}" for mean in means))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
