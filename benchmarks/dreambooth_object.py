"""DreamBooth on a TinyFlux that was trained on shapes: one new object from six pictures.

The object is a target, a red disc with a yellow middle. Its six pictures share one prompt, and the
class is "a circle", which the base draws itself.

python -m benchmarks.dreambooth_object BASE_RUN FOLDER [train.py's words]

Trains method=dreambooth and draws, with and without the adapter: the object alone, the object at
nine places that no prompt of it named, plain circles, and whole captions of the other shapes. A
picture shows the object if a target explains it better than a plain circle of any colour does, and
at least three quarters of what differs from the ground. A table.json and sheets are left in FOLDER.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.data.tasks.shapes.grammar import POSITIONS, RADII, SEEN_PAIRS, SIZES, caption_of
from tinyflux_pl.data.tasks.shapes.render import COLOURS, PALETTE, ShapeInstance, draw
from tinyflux_pl.data.tasks.shapes.verifier import ShapeVerifier
from tinyflux_pl.inference.adapters import with_adapters
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.sampling.grid import Grid
from tinyflux_pl.sampling.picture import to_picture

ROOT = Path(__file__).resolve().parents[1]
WORD, CLASS = "a sks circle", "a circle"
OUTER, INNER, MIDDLE = "red", "yellow", 0.55  # the middle's radius over the object's
PICTURES, SIDE, GROUND, COUNT = 6, 32, 232.0, 48
EXPLAINED = 0.75


def target(x: float, y: float, radius: float) -> np.ndarray:
    """The object as uint8 (SIDE, SIDE, 3)."""
    discs = [(OUTER, radius), (INNER, MIDDLE * radius)]
    parts = [ShapeInstance("circle", np.asarray(PALETTE[c]), x, y, r) for c, r in discs]
    return draw(parts, SIDE, GROUND)[0]


def write_pictures(folder: Path) -> None:
    """The object's pictures, at different places and sizes."""
    folder.mkdir(parents=True)
    places, sizes = list(POSITIONS.values()), list(RADII.values())
    for i in range(PICTURES):
        pixels = target(*places[(4 * i + 1) % len(places)], sizes[i % len(sizes)])
        Image.fromarray(pixels).save(folder / f"{i}.png")


def templates() -> tuple[Float[Tensor, "n d"], list[tuple[str, float, float]]]:
    """Targets and plain circles at every place, less the ground; (name, x, y) of each."""
    rows, names = [], []
    centres = np.arange(7.0, 25.5, 1.0)
    for x, y, radius in product(centres, centres, (3.6, 4.4, 5.2, 6.2, 7.2)):
        rows.append(target(x, y, radius))
        names.append(("object", x, y))
        for colour in COLOURS:
            plain = ShapeInstance("circle", np.asarray(PALETTE[colour]), x, y, radius)
            rows.append(draw([plain], SIDE, GROUND)[0])
            names.append((colour, x, y))
    flat = torch.from_numpy(np.stack(rows)).flatten(1).float()
    return flat / 255 - GROUND / 255, names


def read(
    images: Float[Tensor, "b 3 h w"],
    known: Float[Tensor, "n d"],
    names: list[tuple[str, float, float]],
) -> list[tuple[str | None, str]]:
    """For pictures in [-1, 1]: what explains each best, None if too little, and its position."""
    pixels = (images.permute(0, 2, 3, 1).float() + 1) / 2
    ground = pixels.flatten(1, 2).median(1).values
    flat = (pixels - ground[:, None, None]).flatten(1)
    total = flat.square().sum(1)
    errors = total[:, None] - 2 * flat @ known.T + known.square().sum(1)
    least, best = errors.min(1)
    answers = []
    for error, scale, index in zip(least, total, best, strict=True):
        name, x, y = names[int(index)]
        near = min(POSITIONS, key=lambda p: (POSITIONS[p][0] - x) ** 2 + (POSITIONS[p][1] - y) ** 2)
        answers.append((name if error <= (1 - EXPLAINED) * scale else None, near))
    return answers


def full_captions() -> list[str]:
    """COUNT captions of every kind of object that the base was trained on."""
    captions = []
    for i in range(COUNT):
        colour, shape = SEEN_PAIRS[(7 * i) % len(SEEN_PAIRS)]
        said = {"colour": colour, "shape": shape, "position": list(POSITIONS)[(5 * i + 2) % 9]}
        captions.append(caption_of({**said, "size": SIZES[i % len(SIZES)]}, i % 5))
    return captions


@torch.no_grad()
def measure(pipeline: Pipeline, sheet: Path) -> dict[str, float]:
    """Share of pictures for each of the four kinds of prompts."""
    known, names = templates()
    places = list(POSITIONS) * (COUNT // len(POSITIONS) + 1)
    placed = [f"{WORD}, {place}" for place in places[:COUNT]]
    asked = {
        "object": [WORD] * COUNT,
        "placed": placed,
        "class": [CLASS] * COUNT,
        "rest": full_captions(),
    }
    grid, images = Grid(32), {}
    for seed, (kind, prompts) in enumerate(asked.items()):
        images[kind] = pipeline.sampler.images(pipeline.denoiser, prompts, seed=seed)
        for image, prompt in list(zip(images[kind], prompts, strict=True))[:8]:
            grid.add(to_picture(image), prompt)
    grid.sheet(8).save(sheet)
    answers = {kind: read(images[kind], known, names) for kind in ("object", "placed", "class")}
    checked = ShapeVerifier().check(images["rest"], asked["rest"])
    in_place = zip(answers["placed"], places[:COUNT], strict=True)
    return {
        "the object": sum(name == "object" for name, _ in answers["object"]) / COUNT,
        "the object, placed": sum(name == "object" for name, _ in answers["placed"]) / COUNT,
        "... in its place": sum(a == ("object", place) for a, place in in_place) / COUNT,
        "a plain circle": sum(name in COLOURS for name, _ in answers["class"]) / COUNT,
        "other captions": float(checked["all"].float().mean()),
    }


@warnings_above_bars()
def main(base: Path, folder: Path, *words: str) -> None:
    """Pictures, run, table."""
    write_pictures(folder / "pictures")
    data = [f"data.root={(folder / 'pictures').resolve()}", f"data.image_size={SIDE}"]
    data += [f"data.prompt={WORD}", f"data.class_prompt={CLASS}"]
    network = ["model=tiny", "method=dreambooth", f"init={base.resolve()}", "experts=none"]
    quiet = ["callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0"]
    off = ["preflight=false", f"paths.root={folder.resolve()}", "run=object", *quiet]
    command = [sys.executable, str(ROOT / "train.py"), *network, *data, *off, *words]
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, cwd=ROOT)
    table = {
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(os.times().children_user - before.children_user),
        "words": words,
    }
    plain = Pipeline.from_checkpoint(base)
    shares = {"base": measure(plain, folder / "base.png")}
    adapted = with_adapters(plain, [(folder / "outputs" / "object", 1.0)])
    shares["with"] = measure(adapted, folder / "with.png")
    (folder / "table.json").write_text(json.dumps({**table, **shares}, indent=1))
    for kind in shares["base"]:
        print(kind.ljust(20), *(f"{shares[arm][kind]:5.0%}" for arm in shares))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
