"""The parts of the main job and their peers, timed in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tinyflux_pl.core.precision import autocast
from tinyflux_pl.core.types import Batch, Conditioning, TextEmbeddings

BATCH, TOKENS, WORDS, WIDTH, IMAGES = 64, 64, 12, 128, 64


def rounds(
    first: Callable[[], None], second: Callable[[], None], seconds: float
) -> tuple[float, float]:
    """Median seconds a call of each, taken in turns for about `seconds`."""
    first(), second()
    taken: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[0]) < 3:
        for kept, call in zip(taken, (first, second), strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


def tiny() -> torch.nn.Module:
    """The student of `model=tiny`, without experts."""
    from tinyflux_pl.core.specs import LatentSpec, TextSpec
    from tinyflux_pl.denoisers.tinyflux import build
    from tinyflux_pl.diffusion.paths import LinearPath

    sizes = {
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "axes_dims_rope": (8, 12, 12),
    }
    depth = {"num_double_layers": 2, "num_single_layers": 4, "patch_size": 2}
    return build(LatentSpec(12, 2), TextSpec(128, 24, 128), LinearPath(), **sizes, **depth)


def peer() -> torch.nn.Module:
    """diffusers' Flux of the same width, depth, heads and token width."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=48,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        axes_dims_rope=(8, 12, 12),
    )


def training_step(seconds: float, precision: str) -> tuple[float, float]:
    """Forward, backward and AdamW of both networks on the same sizes."""
    from tinyflux_pl.training.optimizers import adamw

    ours, theirs = tiny(), peer()
    optimizers = adamw(ours), adamw(theirs)
    x, t = torch.randn(BATCH, 12, 16, 16), torch.rand(BATCH)
    text = TextEmbeddings(
        torch.randn(BATCH, WORDS, 128),
        torch.ones(BATCH, WORDS, dtype=torch.bool),
        torch.randn(BATCH, 128),
    )
    tokens, image_ids, text_ids = (
        torch.randn(BATCH, TOKENS, 48),
        torch.zeros(TOKENS, 3),
        torch.zeros(WORDS, 3),
    )

    def step(optimizer: torch.optim.Optimizer, forward: Callable[[], torch.Tensor]) -> None:
        with autocast(precision, "cpu"):
            loss = forward().float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def call() -> torch.Tensor:
        return theirs(
            hidden_states=tokens,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            timestep=t,
            img_ids=image_ids,
            txt_ids=text_ids,
            return_dict=False,
        )[0]

    return rounds(
        lambda: step(optimizers[0], lambda: ours(x, t, Conditioning(text)).sample),
        lambda: step(optimizers[1], call),
        seconds,
    )


def trimmed_words(seconds: float, precision: str) -> tuple[float, float]:
    """A training step with the words that there are, and with captions padded to the encoder's
    length.
    """
    from tinyflux_pl.training.optimizers import adamw

    net = tiny()
    optimizer = adamw(net)
    x, t = torch.randn(BATCH, 12, 16, 16), torch.rand(BATCH)
    mask = torch.ones(BATCH, WORDS, dtype=torch.bool)
    text = TextEmbeddings(torch.randn(BATCH, WORDS, 128), mask, torch.randn(BATCH, 128))

    def step(told: TextEmbeddings) -> None:
        with autocast(precision, "cpu"):
            loss = net(x, t, Conditioning(told)).sample.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return rounds(lambda: step(text), lambda: step(text.padded(24)), seconds)


def cached_batch(seconds: float) -> tuple[float, float]:
    """A random batch of 64 from a memory-mapped store, and from tensors in memory."""
    from tinyflux_pl.cache.dataset import CachedDataset
    from tinyflux_pl.cache.store import CacheStore

    count = 4096
    columns = {
        "latents": torch.randn(count, 12, 16, 16).half(),
        "text.tokens": torch.randn(count, 24, 128).half(),
        "text.mask": torch.ones(count, 24, dtype=torch.bool),
        "text.pooled": torch.randn(count, 128).half(),
        "sample_ids": torch.arange(count),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = CacheStore.create(Path(folder) / "store", "benchmark", count, 1024, {})
        store.begin_group("encodings", {})
        for k in range(store.shards):
            rows = store.rows(k)
            part = {name: column[rows.start : rows.stop] for name, column in columns.items()}
            store.write_shard("encodings", k, part, ["a large red circle, top left"] * len(rows))
        datasets = CachedDataset(store), CachedDataset(store, in_memory=True)
        order = torch.randperm(count)

        def draw(dataset: CachedDataset) -> Callable[[], Batch]:
            return lambda: dataset.__getitems__(order[torch.randint(count, (BATCH,))].tolist())

        return rounds(draw(datasets[0]), draw(datasets[1]), seconds)  # type: ignore[arg-type]


def sampling(seconds: float, precision: str) -> tuple[float, float]:
    """Eight guided Euler steps for 16 images: ours in one forward a step, the peer in two."""
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.sampling.loop import SamplerSettings, sample
    from tinyflux_pl.text.hashed_words import HashedWords

    ours, encoder, images, steps = tiny().eval(), HashedWords(), 16, 8
    text, null = encoder.encode(["a large red circle, top left"] * images).trimmed(), encoder.null()
    settings = SamplerSettings(steps=steps, solver="euler", guidance=Guidance(scale=3.0))

    def batched() -> None:
        with autocast(precision, "cpu"):
            sample(
                ours,
                text,
                null,
                shape=(12, 16, 16),
                sample_ids=range(images),
                seed=0,
                settings=settings,
            )

    @torch.inference_mode()
    def twice() -> None:
        x, none = torch.randn(images, 12, 16, 16), null.expand(images)
        with autocast(precision, "cpu"):
            for i in range(steps):
                t = torch.full((images,), i / steps)
                cond, uncond = (
                    ours(x, t, Conditioning(told)).sample.float() for told in (text, none)
                )
                x = x + (uncond + 3.0 * (cond - uncond)) / steps

    return rounds(batched, twice, seconds)


def muon_step(seconds: float) -> tuple[float, float]:
    """One step of Muon on the matrices inside the student's blocks."""
    from tinyflux_pl.training.muon import Muon
    from tinyflux_pl.training.optimizers import split_by_role

    def made(kind: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
        hidden, _, _ = split_by_role(tiny())
        for parameter in hidden:
            parameter.grad = torch.randn_like(parameter)
        return kind(hidden)

    return rounds(made(Muon).step, made(torch.optim.Muon).step, seconds)  # type: ignore[arg-type]


def teacher(name: str, seconds: float, precision: str) -> tuple[float, float]:
    """IMAGES pictures of 32 x 32 shown to an embedded teacher at ten times each: copies side by
    side, and one.
    """
    from tinyflux_pl.diffusion.paths import LinearPath
    from tinyflux_pl.experts.lune_features import LuneFeatures
    from tinyflux_pl.experts.sol_attention import SolAttention
    from tinyflux_pl.experts.teacher import embedded
    from tinyflux_pl.extraction.parallel_blocks import run_parallel

    kind, told = {"lune": LuneFeatures, "sol": SolAttention}[name], embedded(name)
    first = kind(told, LinearPath(), max_batch=80)
    workers = [first, *first.copies(torch.get_num_threads() - 1)]
    text = told.text.encode(["a large red circle, top left"] * 8)
    latents = torch.randn(8, 12, 16, 16)

    @torch.inference_mode()
    def work(worker: LuneFeatures | SolAttention, start: int) -> None:
        with autocast(precision, "cpu"):
            worker.extract(latents, text, range(start, start + 8))

    def all_of(workers: list[LuneFeatures | SolAttention]) -> Callable[[], None]:
        return lambda: list(run_parallel(workers, work, range(0, IMAGES, 8))) and None

    return rounds(all_of(workers), all_of(workers[:1]), seconds)
