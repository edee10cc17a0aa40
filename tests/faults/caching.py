"""A small project to extract from: images, captions and random weights of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests import releases
from tests.app.runs import configuration
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core import files
from tinyflux_pl.denoisers.unet import build_unet
from tinyflux_pl.diffusion.paths import LinearPath, VPPath
from tinyflux_pl.text.hashed_words import HashedWords

COLOURS = ("red", "blue", "green", "white", "black", "grey", "pink")
WIDTH = 16  # of Lune's features
PARTS = ("data", "teachers", "flux1", "t5", "clip")


def make(root: Path, pictures: int = len(COLOURS), pretrained: bool = True) -> Path:
    """Images with captions, two teachers, and with `pretrained` an autoencoder, a T5 and a CLIP."""
    for i in range(pictures):
        draw(root, i, i)
    for name, path, prediction, scale in (
        ("lune", LinearPath(noise_at=1), "velocity", 1000.0),
        ("sol", VPPath(), "v", 999.0),
    ):
        teacher(root, name, path, prediction, scale)
    if pretrained:
        releases.flux1_vae(root / "flux1")
        releases.flan_t5(root / "t5")
        releases.clip(root / "clip")
    return root


def draw(root: Path, number: int, seed: int) -> Path:
    """Picture `number`: noise of a seed, wider than high; its caption stays if there is one."""
    file = root / "data" / f"{number:03d}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    if not file.with_suffix(".txt").exists():
        file.with_suffix(".txt").write_text(f"a {COLOURS[number % len(COLOURS)]} circle {number}")
    return file


def teacher(root: Path, name: str, path: Any, prediction: str, scale: float, seed: int = 0) -> None:
    """A UNet of two levels, as the project's own teachers are kept."""
    codec, text = PixelFolding(2), HashedWords(16, 6)
    torch.manual_seed(seed)
    denoiser = build_unet(
        codec.latent_spec,
        text.text_spec,
        path,
        prediction,
        block_out_channels=(8, WIDTH),
        attention_levels=(True, True),
        attention_head_dim=2,
        norm_num_groups=4,
        time_scale=scale,
    )
    weights = root / "teachers" / f"{name}.safetensors"
    files.write_tensors(weights, denoiser.state_dict())
    parts = {
        part.name: {"name": part.name, "config": part.config()} for part in (path, codec, text)
    }
    described = {
        "path": parts[path.name],
        "codec": parts[codec.name],
        "text": parts[text.name],
        "denoiser": "unet",
    }
    described |= {
        "config": denoiser.config_dict(),
        "prediction": prediction,
        "sha256": files.sha256(weights),
    }
    files.write_json(weights.with_suffix(".json"), described)


def alter(weights: Path, change: float = 1e-2) -> None:
    """Change the weights of a file, and their hash in a description next to it."""
    tensors = {
        key: value + change if value.is_floating_point() else value
        for key, value in read(weights).items()
    }
    files.write_tensors(weights, tensors, {"format": "pt"})
    described = weights.with_suffix(".json")
    if described.exists():
        parts = json.loads(described.read_text())
        files.write_json(described, {**parts, "sha256": files.sha256(weights)})


def read(weights: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, no longer mapped from it."""
    return {key: value.clone() for key, value in files.read_tensors(weights).items()}


def chosen(root: Path, pretrained: bool = True) -> list[str]:
    """The overrides that name this world."""
    text_choices = ["text.width=16"]
    if pretrained:
        text_choices = [
            "codec=flux1",
            f"codec.weights='{root / 'flux1'}'",
            "text=flan_t5_clip",
            f"text.t5='{root / 't5'}'",
        ]
        text_choices += [f"text.clip='{root / 'clip'}'", "text.length=16"]
    folders = [f"teacher.{name}.folder='{root / 'teachers'}'" for name in ("lune", "sol")]
    small = [
        "data.image_size=32",
        "data.shard_size=3",
        "data.validation_fraction=0.2",
        "data.extraction_batch=2",
    ]
    return [
        "data=folder",
        f"data.root='{root / 'data'}'",
        *small,
        *text_choices,
        "experts=lune_sol",
        *folders,
        f"teacher.width={WIDTH}",
        "hardware.precision=32-true",
    ]


def config(
    root: Path, *overrides: str, task: str = "extract", pretrained: bool = True
) -> dict[str, Any]:
    """The configuration of a task in this world; its caches lie in the world's folder, too."""
    return configuration(task, root, *chosen(root, pretrained), *overrides)


def moved(config: dict[str, Any], root: Path, target: Path) -> dict[str, Any]:
    """The configuration of one project for its copy in another folder, without composing again."""
    return json.loads(json.dumps(config).replace(str(root), str(target)))


def extract(root: Path, *overrides: str, pretrained: bool = True) -> None:
    """Run the complete extraction recipe."""
    recipes.extract(config(root, *overrides, pretrained=pretrained))


def copied(root: Path, target: Path, caches: bool = True) -> Path:
    """The world in another place, with or without its caches."""
    return shutil.copytree(
        root, target, ignore=None if caches else shutil.ignore_patterns("cache", "outputs")
    )


def content(root: Path) -> dict[str, bytes]:
    """Every file of the world's caches, but for those that only save time."""
    stores = root / "cache"
    files_read = (
        p
        for p in sorted(stores.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock") and "decoded." not in p.name
    )
    return {str(p.relative_to(stores)): p.read_bytes() for p in files_read}


def store(root: Path, split: str = "train") -> CacheStore:
    return CacheStore.open(root / "cache" / "folder" / split)
