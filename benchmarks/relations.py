"""Does a small UNet learn which object a relation puts where? python -m benchmarks relations

Trains the embedded teachers' network (model=unet) from nothing on scenes of two objects in a
relation, as the teachers are: the first steps at half the size, the others at the size of
data=scenes. Every 100 steps it prints the validation loss at three times, of seen pairs of colour
and shape and of held-out ones, and beside each what the loss gains when every caption says the
opposite relation: nothing while the network ignores it.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.precision import autocast
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.data.tasks.scenes.grammar import Scene, parse
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.denoisers.unet import UNetDenoiser, build_unet
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.training.optimizers import MuonAdamW, build_optimizer

TIMES = (1.0, 0.9, 0.7)
TRAINED, EVALUATED, BATCH = 8192, 256, 32
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def scenes(split: str, count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Pictures (N, 3, 48, 48) in [-1, 1] and captions of two objects in a relation."""
    records = Scenes(split, count, 48, seed)
    pixels: list[Tensor] = []
    captions: list[str] = []
    index = 0
    while len(pixels) < count:
        example = records.example(index, seed * 1_000_003 + index)
        index += 1
        if parse(example.caption).relation is not None:
            pixels.append(torch.from_numpy(np.asarray(example.image)).permute(2, 0, 1))
            captions.append(example.caption)
    return torch.stack(pixels).float() / 127.5 - 1, captions


def opposite(caption: str) -> str:
    """The same objects in the opposite relation."""
    scene = parse(caption)
    return Scene(scene.objects, OPPOSITE[scene.relation or ""]).caption(0)


class Question:
    """Latents of pictures, their captions, and the captions with the opposite relation."""

    def __init__(self, pixels: Tensor, captions: list[str], text: HashedWords) -> None:
        self.latents = PixelFolding(2).encode(pixels)
        self.captions = Conditioning(text.encode(captions).trimmed())
        self.opposites = Conditioning(text.encode([opposite(c) for c in captions]).trimmed())
        generator = torch.Generator().manual_seed(5)
        self.noise = torch.randn(self.latents.shape, generator=generator)

    @torch.no_grad()
    def answers(self, network: UNetDenoiser) -> list[str]:
        """Loss, and what the opposite relation adds to it, at each of TIMES."""
        path, cells = network.path, []
        for time_ in TIMES:
            t = torch.full((len(self.latents),), time_)
            x_t = path.interpolate(self.latents, self.noise, t)
            target = path.velocity(self.latents, self.noise, t)
            with autocast("bf16-mixed", "cpu"):
                said, other = (network(x_t, t, c).sample for c in (self.captions, self.opposites))
            loss, swapped = (float(F.mse_loss(v.float(), target)) for v in (said, other))
            cells.append(f"{loss:.4f} {swapped - loss:+.4f}")
        return cells


def train(network: UNetDenoiser, text: HashedWords, half: int, full: int, shift: float) -> None:
    """`half` steps at half the size, `full` at the whole; prints a row every 100 steps."""
    pixels, captions = scenes("train", TRAINED, 1)
    seen, held_out = scenes("train", EVALUATED, 2), scenes("held_out", EVALUATED, 3)
    optimizer = build_optimizer(network, partial(MuonAdamW, lr=1.5e-3, muon_lr=3.0e-3))
    rates = [group["lr"] for group in optimizer.param_groups]
    generator, path, steps = torch.Generator().manual_seed(1), network.path, half + full
    started = time.perf_counter()
    for step in range(steps):
        if step in (0, half):
            factor = 2 if step < half else 1
            questions = [Question(F.avg_pool2d(p, factor), c, text) for p, c in (seen, held_out)]
            latents = PixelFolding(2).encode(F.avg_pool2d(pixels, factor))
        scale = min(1, (step + 1) / 50) * min(1, max(0.05, (steps - step) / (0.2 * steps)))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        rows = torch.randint(TRAINED, (BATCH,), generator=generator)
        noise = torch.randn(latents[rows].shape, generator=generator)
        u = torch.randn(BATCH, generator=generator).sigmoid()
        t = shift * u / (1 + (shift - 1) * u)
        cond = Conditioning(text.encode([captions[i] for i in rows]).trimmed())
        with autocast("bf16-mixed", "cpu"):
            output = network(path.interpolate(latents[rows], noise, t), t, cond).sample
        loss = F.mse_loss(output.float(), path.velocity(latents[rows], noise, t))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            cells = [cell for question in questions for cell in question.answers(network)]
            spent = time.perf_counter() - started
            print(f"{step + 1:5} {spent:5.0f} s  {'  '.join(cells)}", flush=True)


def main(arguments: list[str]) -> int:
    """Train one network and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks relations")
    parser.add_argument("--half", type=int, default=700, help="steps at half the size")
    parser.add_argument("--full", type=int, default=300, help="steps at the whole size")
    parser.add_argument("--shift", type=float, default=6.0, help="of the training times")
    parser.add_argument("--text-layers", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    text, path = HashedWords(), LinearPath(noise_at=1)
    network = build_unet(
        PixelFolding(2).latent_spec,
        text.text_spec,
        path,
        "velocity",
        text_layers=options.text_layers,
    )
    times = "  ".join(f"t = {t}".ljust(14) for t in TIMES)
    print(f"{'steps':>5} {'':7}  {times}  held out: {times}")
    train(network, text, options.half, options.full, options.shift)
    return 0
