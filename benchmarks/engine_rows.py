"""The techniques of the engine's benchmark: what each draws, and what diffusers draws beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.engine_subjects import Subject
from tinyflux_pl.diffusion.cache_rules import CacheSettings, fitted
from tinyflux_pl.engine.block_offload import BlockOffload
from tinyflux_pl.engine.packing import pack
from tinyflux_pl.sampling.step_cache import StepCache

FEW, MANY = 8, 28  # steps, of step caches the latter
SCALE, INTERVAL = 3.0, (0.3, 0.8)
TEACACHE = 0.1  # thresholds
FIRST_BLOCK = {"tinyflux": 0.8, "flux1": 0.4}  # about what random first blocks change in a step
Draw = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One technique on one subject.

    `plain` draws the picture that PSNR is measured to. `theirs` None: nothing to compare with.
    `host` holds bytes of weights that are not on the counted device, `rates` the shares of steps
    that a cache passed by.
    """

    subject: Subject
    peer: Subject
    ours: Draw
    plain: Draw
    theirs: Draw | None
    against: str
    lossless: bool = False
    host: int = 0
    rates: Sequence[float] = ()


def plain(subject: Subject) -> Row:
    draw = partial(subject.ours, subject.settings(FEW))
    return Row(subject, subject, draw, draw, partial(subject.theirs, FEW), "plain", lossless=True)


def guided(subject: Subject, **options: Any) -> Row:
    """Both sides in one forward; diffusers' pipeline makes two."""
    full = partial(subject.ours, subject.settings(FEW, scale=SCALE))
    draw = partial(subject.ours, subject.settings(FEW, scale=SCALE, **options))
    theirs = partial(subject.theirs, FEW, SCALE)
    return Row(subject, subject, draw, full, theirs, "two forwards a step", not options)


def cached(subject: Subject, kind: str) -> Row:
    """A step cache over 28 steps, against diffusers' first-block cache at the same threshold.

    Against its plain pipeline for TeaCache, which it lacks, and where it has other weights: the
    same threshold would reuse other steps.
    """
    from diffusers import FirstBlockCacheConfig

    settings = subject.settings(MANY)
    threshold, coefficients = FIRST_BLOCK[subject.name], ()
    if kind == "teacache":
        threshold = TEACACHE
        calibration = StepCache(CacheSettings(kind, 0.0, coefficients=(0.0,) * 5))
        subject.ours(settings, calibration)
        coefficients = tuple(fitted(calibration.movements, calibration.changes))
    rules = CacheSettings(kind, threshold, MANY, coefficients)
    rates: list[float] = []

    def ours() -> Any:
        cache = StepCache(rules)
        pictures = subject.ours(settings, cache)
        rates.append(cache.hit_rate)
        return pictures

    peer, against = subject, "plain"
    if kind == "first_block" and subject.same:
        peer, against = subject.own_pipe(), "its first-block cache"
        peer.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    full = partial(subject.ours, settings)
    return Row(subject, peer, ours, full, partial(peer.theirs, MANY), against, rates=rates)


def packed(subject: Subject, precision: str) -> Row:
    """Weights in fewer bits; diffusers alone stores fp8 and casts each layer there and back."""
    changed, peer = subject.own_denoiser(), subject.own_pipe()
    pack(changed.denoiser, precision)
    peer.pipe.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    draw = partial(changed.ours, subject.settings(FEW))
    full, theirs = partial(subject.ours, subject.settings(FEW)), partial(peer.theirs, FEW)
    return Row(changed, peer, draw, full, theirs, "fp8 layerwise casting")


def offloaded(subject: Subject, count: int | None) -> Row:
    """Weights copied for the stage, `count` blocks in turn (None: as many as can come).

    diffusers copies nothing where both devices are the CPU: its time says nothing of copying.
    """
    changed = subject.own_denoiser()
    denoiser = changed.denoiser
    blocks = [block.module for block in denoiser.block_stack()]
    count = len(blocks) - 1 if count is None else count
    offload = BlockOffload(denoiser, blocks, torch.device("cpu"), count)
    full = partial(subject.ours, subject.settings(FEW))

    def ours() -> Any:
        offload.load()
        pictures = changed.ours(subject.settings(FEW))
        offload.unload()
        return pictures

    host = sum(tensor.nbytes for tensor in (*denoiser.parameters(), *denoiser.buffers()))
    return Row(changed, subject, ours, full, None, "", lossless=True, host=host)


def tiled(subject: Subject) -> Row:
    """Decoding 256 x 256 pixels in tiles of 128."""
    latents = torch.randn(1, 16, 32, 32)
    codec = type(subject.codec)(**{**subject.codec.config(), "tile": 128})
    vae = copy.deepcopy(subject.pipe.vae)
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 128, 16

    @torch.inference_mode()
    def ours(decoder: Any) -> Any:
        return decoder.decode(latents)

    @torch.inference_mode()
    def theirs() -> Any:
        return vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample

    peer = replace(subject, pipe=_Decoder(vae))
    changed = replace(subject, codec=codec, denoiser=torch.nn.Identity())
    draws = (partial(ours, codec), partial(ours, subject.codec))
    return Row(changed, peer, *draws, theirs, "its tiles")


@dataclass(frozen=True)
class _Decoder:
    vae: Any
    transformer: Any = None


ROWS: dict[str, Callable[[Subject], Row]] = {
    "plain": plain,
    "guidance": guided,
    "guidance interval": lambda subject: guided(subject, interval=INTERVAL),
    "first-block cache": lambda subject: cached(subject, "first_block"),
    "TeaCache": lambda subject: cached(subject, "teacache"),
    **{name: partial(packed, precision=name) for name in ("fp8", "int8", "int8_dynamic", "int4")},
    "sequential": lambda subject: offloaded(subject, 0),
    "blocks in turn": lambda subject: offloaded(subject, None),
    "tiled decode": tiled,
}
ONLY = {"tiled decode": ("flux1",)}  # of a codec with weights
