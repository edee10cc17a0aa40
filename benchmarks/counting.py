"""At which noise does a teacher decide how many objects stand? python -m benchmarks counting

Pictures of two to four alike are noised to several times and drawn on from there with their own
captions. A picture that keeps its number from a time on, and loses it from the next, says where the
number is decided: that is where training times belong. The first row begins from noise alone.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.core.precision import autocast
from tinyflux_pl.data.tasks.scenes.grammar import BASE, parse
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.experts.teacher import Teacher, embedded
from tinyflux_pl.sampling.initial import Initial
from tinyflux_pl.sampling.loop import SamplerSettings, sample, step_times

STEPS, SHIFT, SEED = 20, 3.0, 2
STRENGTHS = (1.0, 0.95, 0.85, 0.75, 0.65, 0.55)


def groups(split: str, count: int) -> tuple[Tensor, list[str]]:
    """Pictures (N, 3, 48, 48) in [-1, 1] of several alike, and their captions."""
    records = Scenes(split, count, BASE, SEED, relation_share=0.0)
    examples = [records.example(i, SEED * 1_000_003 + i) for i in range(count)]
    pixels = torch.from_numpy(np.stack([example.image for example in examples]))
    captions = [example.caption for example in examples]
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, captions


def redrawn(
    teacher: Teacher, pixels: Tensor, captions: list[str], strength: float, scale: float
) -> tuple[float, Tensor]:
    """The time that the pictures were noised to, and which of them show their number (N,)."""
    settings = SamplerSettings(
        steps=STEPS, solver="euler", shift=SHIFT, guidance=Guidance(scale=scale)
    )
    latents = teacher.codec.encode(pixels)
    initial = Initial(latents, strength)
    with autocast("bf16-mixed", "cpu"):
        drawn = sample(
            teacher.denoiser,
            teacher.text.encode(captions).trimmed(),
            teacher.text.null().trimmed(),
            shape=tuple(latents.shape[1:]),
            sample_ids=range(len(captions)),
            seed=SEED,
            settings=settings,
            max_batch=len(captions),
            initial=initial,
        )
    times = step_times(settings, teacher.denoiser.path, latents.shape[2] * latents.shape[3])
    answers = Scenes().verifier().check(teacher.codec.decode(drawn), captions)
    return float(times[initial.first_step(STEPS)]), answers["count"]


def main(arguments: list[str]) -> int:
    """Print a row for each guidance and starting time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks counting")
    parser.add_argument("--teacher", default="lune", help="lune or sol")
    parser.add_argument("--folder", help="of another teacher's files; the embedded ones")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 3.0])
    parser.add_argument("--split", default="train", help="train or held_out")
    parser.add_argument("--pictures", type=int, default=96)
    options = parser.parse_args(arguments)
    teacher = embedded(options.teacher, options.folder)
    pixels, captions = groups(options.split, options.pictures)
    numbers = torch.tensor([len(parse(caption).objects) for caption in captions])
    print(f"{'guidance':>8} {'from t':>7} {'right':>6}    two  three   four")
    for scale in options.guidance:
        for strength in STRENGTHS:
            time, right = redrawn(teacher, pixels, captions, strength, scale)
            shares = [right[numbers == n].float().mean().item() for n in (2, 3, 4)]
            cells = "  ".join(f"{share:5.0%}" for share in shares)
            print(f"{scale:8} {time:7.3f} {right.float().mean():6.0%}  {cells}", flush=True)
    return 0
