"""Extraction of Lune and Sol against the original's way: python -m benchmarks extraction.

A UNet of Stable Diffusion 1.5's shape with fewer channels and random weights, 32 x 32 latents, ten
buckets an image. The memory of Sol's attention is counted on the meta device at Stable Diffusion's
real sizes. Writes benchmarks/results/extraction.json; `ratio` is how much faster both are together.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks import original_extraction as original
from benchmarks.machine import machine
from benchmarks.main_job_parts import rounds
from tinyflux_pl.core.files import write_json
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.engine.activations import activations
from tinyflux_pl.experts.lune_features import mid_block_mean
from tinyflux_pl.experts.sol_attention import (
    StatisticsAttention,
    capture_layers,
    grids_of,
    summarise,
)

RESULT = Path(__file__).parent / "results" / "extraction.json"
BUCKETS, WORDS = 10, 77
SMALL, REAL = (64, 128, 256, 256), (320, 640, 1280, 1280)
GOALS = {"lune": 2.5, "both": 1.3, "attention memory of sol": 20.0}


def teacher(widths: tuple[int, ...], text_width: int) -> UNetDenoiser:
    """A UNet of Stable Diffusion 1.5's levels, layers and heads."""
    config = {
        "block_out_channels": list(widths),
        "attention_head_dim": 8,
        "cross_attention_dim": text_width,
        "sample_size": 64,
    }
    text = TextSpec(text_width, WORDS, text_width)
    spec = LatentSpec(4, 8)
    return UNetDenoiser(config, LinearPath(), "velocity", spec, text, masks_text=False).eval()


def inputs(count: int, side: int, width: int) -> tuple[Tensor, Tensor, Conditioning]:
    """Noised latents, times and text of `count` pairs of image and bucket."""
    mask = torch.ones(count, WORDS, dtype=torch.bool)
    text = TextEmbeddings(torch.randn(count, WORDS, width), mask, torch.randn(count, width))
    return torch.randn(count, 4, side, side), torch.rand(count), Conditioning(text)


def _ours(denoiser: UNetDenoiser, batch: tuple[Tensor, Tensor, Conditioning]) -> tuple[Any, Any]:
    return (
        lambda: mid_block_mean(denoiser, *batch),
        lambda: summarise(capture_layers(denoiser, *batch), 8, stats=3),
    )


def _peers(denoiser: UNetDenoiser, batch: tuple[Tensor, Tensor, Conditioning]) -> tuple[Any, Any]:
    x, t, cond = batch

    def sol() -> None:
        for start in range(0, len(x), original.SOL_BATCH):
            rows = torch.arange(start, min(start + original.SOL_BATCH, len(x)))
            original.sol(denoiser, x[rows], t[rows], Conditioning(cond.text.select(rows)))

    return (lambda: original.lune(denoiser, *batch)), sol


def seconds_of(images: int, side: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Name -> seconds of ours and of the original's for `images` at ten buckets."""
    denoiser = teacher(SMALL, 128)
    batch = inputs(images * BUCKETS, side, 128)
    with torch.inference_mode():
        pairs = zip(_ours(denoiser, batch), _peers(denoiser, batch), strict=True)
        lune, sol = (rounds(ours, peer, seconds) for ours, peer in pairs)
    return {"lune": lune, "sol": sol, "both": (lune[0] + sol[0], lune[1] + sol[1])}


def attention_bytes(rows: int = original.SOL_BATCH) -> tuple[int, int]:
    """Peak bytes of Sol's statistics of Stable Diffusion 1.5 at 64 x 64 latents.

    Ours: of its largest layer, the others come after it. The original's: what keeping every map
    adds to a plain pass.
    """
    heads, tokens = 8, 64 * 64
    with torch.device("meta"):
        query = torch.empty(rows, heads, tokens, REAL[0] // heads)
        denoiser = teacher(REAL, 768)
        batch = inputs(rows, 64, 768)
    recorder = StatisticsAttention(grids_of(64, 64))
    layer = SimpleNamespace(scale=query.shape[-1] ** -0.5)
    ours = activations(lambda: recorder.observe(layer, query, query))
    kept = activations(lambda: original.sol(denoiser, *batch))
    return ours, kept - activations(lambda: denoiser(*batch))


def main(arguments: list[str]) -> int:
    """Measure, print the table and write the result; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks extraction")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each comparison")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--side", type=int, default=32, help="of the latents")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    timed = seconds_of(options.images, options.side, options.seconds)
    ratios = {name: theirs / ours for name, (ours, theirs) in timed.items()}
    ours, theirs = attention_bytes()
    ratios["attention memory of sol"] = theirs / ours
    print(f"{'':24} {'ours':>12} {'original':>12} {'ratio':>7} {'goal':>6}")
    rows = {name: (f"{a:.2f} s", f"{b:.2f} s") for name, (a, b) in timed.items()}
    rows["attention memory of sol"] = (f"{ours / 2**20:.0f} MiB", f"{theirs / 2**20:.0f} MiB")
    for name, (left, right) in rows.items():
        goal = GOALS.get(name, "")
        print(f"{name:24} {left:>12} {right:>12} {ratios[name]:7.2f} {goal:>6}")
    result = {
        "ratio": ratios["both"],
        "ratios": ratios,
        "seconds": timed,
        "attention_bytes": [ours, theirs],
        "images": options.images,
        "latent_side": options.side,
        "machine": machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, result)
    print(f"written: {RESULT}")
    return int(any(ratios[name] < goal for name, goal in GOALS.items()))
