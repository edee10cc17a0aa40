"""ControlNet on a TinyFlux of shapes: the overlap of its pictures' edges with their maps.

python -m benchmarks.control_overlap BASE_RUN FOLDER [train.py's words]

Trains method=controlnet on edges, draws captions of validation pictures with their own maps, and
measures how well the edges of each drawn picture cover its own map and the map of another picture.
The base, drawn without maps, is measured beside it; and captions with the maps of other pictures
say which of the two the pictures follow. A table.json and a sheet of pictures are left in FOLDER.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.types import Batch
from tinyflux_pl.data.images.canny import canny_map, edges
from tinyflux_pl.data.images.edge_overlap import edge_overlap
from tinyflux_pl.data.images.resize_rules import image_tensor
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.sampling.grid import Grid
from tinyflux_pl.sampling.images import SamplePictures, text_only
from tinyflux_pl.sampling.picture import to_picture

COUNT, SIDE, STEPS = 64, 32, 12
ROOT = Path(__file__).resolve().parents[1]


def pictures() -> list[tuple[np.ndarray, str]]:
    """Pixels and captions of validation pictures, which no training picture equals."""
    records = Shapes(split="validation", count=COUNT, size=SIDE, seed=0)
    return [(records[i].image, records[i].caption) for i in range(COUNT)]


@torch.no_grad()
def drawn(pipeline: Pipeline, captions: list[str], maps: list[np.ndarray] | None) -> list:
    """A picture of each caption, after its map where there are maps."""
    condition = text_only
    if maps is not None:
        encoded = pipeline.sampler.codec.encode(
            torch.cat([image_tensor(pixels) for pixels in maps])
        )
        condition = SamplePictures(_batch(encoded))
    pipeline.sampler.condition_fn = condition
    images = pipeline.sampler.images(pipeline.denoiser, captions, seed=1)
    return [np.asarray(to_picture(image)) for image in images]


def _batch(hint: Tensor) -> Batch:
    ids = torch.arange(len(hint))
    empty: list = [""] * len(hint)
    return Batch(hint, None, ids, ids, empty, hint=hint)


def overlap(found: list[np.ndarray], maps: list[np.ndarray]) -> float:
    """The mean overlap of the pictures' edges with these maps."""
    pairs = zip(found, maps, strict=True)
    return float(np.mean([edge_overlap(edges(p), m[..., 0] > 127) for p, m in pairs]))


@warnings_above_bars()
def main(base: Path, folder: Path, *words: str) -> None:
    """Run, table, sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    network = ["model=tiny", "method=controlnet", f"init={base.resolve()}", "run=edges"]
    quiet = ["callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0"]
    off = ["preflight=false", f"paths.root={folder.resolve()}", *quiet]
    command = [sys.executable, str(ROOT / "train.py"), *network, *off, *words]
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT)
    seconds = round(time.perf_counter() - started)
    shown = pictures()
    captions, maps = [c for _, c in shown], [canny_map(pixels) for pixels, _ in shown]
    others = [*maps[1:], maps[0]]  # of another picture
    plain = Pipeline.from_checkpoint(base).adjusted(sampler={"steps": STEPS})
    branch = Pipeline.from_checkpoint(folder / "outputs" / "edges").adjusted(
        sampler={"steps": STEPS}
    )
    sets = {
        "data": [pixels for pixels, _ in shown],
        "base": drawn(plain, captions, None),
        "with its map": drawn(branch, captions, maps),
        "with another's map": drawn(branch, captions, others),
    }
    table = {
        name: {"own map": overlap(found, maps), "another's": overlap(found, others)}
        for name, found in sets.items()
    }
    (folder / "table.json").write_text(
        json.dumps({"seconds": seconds, "words": words, "overlap": table}, indent=1)
    )
    grid = Grid(4 * 6)
    for i in range(6):
        for kind, pixels in (
            ("map", maps[i]),
            *((k, v[i]) for k, v in sets.items() if k != "data"),
        ):
            grid.add(Image.fromarray(pixels), f"{kind}: {captions[i]}")
    grid.sheet(4).save(folder / "sheet.png")
    for name, row in table.items():
        print(name.ljust(20), *(f"{kind} {value:5.1%}" for kind, value in row.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
