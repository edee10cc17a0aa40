"""Sol's cached attention and the prediction of the student's head, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core import precision, rng
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.types import Batch
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.inference import described_parts
from tinyflux_pl.report.run_files import RunFiles

EXPERT, MAP, STATISTICS = "sol", "prior_map", "prior_stats"
SAMPLES = 16  # that the averages are over
LARGEST = 60_000_000  # weights of a student that a CPU runs within seconds


@dataclass(frozen=True)
class Importance:
    """Of N samples at K times: maps of mean 1 and statistics, of teacher and student.

    `maps` and `predicted` (N, K, S, S), `stats` and `predicted_stats` (N, K, statistics), `pixels`
    (N, 3, H, W) in [-1, 1] where the latents are folded pixels, else None.
    """

    times: list[float]
    captions: list[str]
    maps: Tensor
    predicted: Tensor
    stats: Tensor
    predicted_stats: Tensor
    pixels: Tensor | None
    step: int

    def correlations(self) -> list[float]:
        """Mean over samples of the correlation of the two maps, at each time."""
        first, second = (
            m.flatten(2) - m.flatten(2).mean(-1, keepdim=True) for m in (self.maps, self.predicted)
        )
        norms = first.norm(dim=-1) * second.norm(dim=-1)
        return ((first * second).sum(-1) / norms.clamp_min(1e-12)).mean(0).tolist()


@torch.inference_mode()
def compute(run: RunFiles, samples: int = SAMPLES) -> Importance:
    """Both sides for the first cached samples, from the newest checkpoint's averaged weights.

    Raises DataError, or the error of the cache or of the checkpoint, if there is nothing to
    compare.
    """
    batch, buckets = _cached(run, samples)
    if not run.checkpoints:
        raise DataError("no checkpoint to predict with", where=str(run.folder))
    checkpoint = directory.read(run.checkpoints[-1].path)
    network = _network(checkpoint)
    path = network.path
    noise = rng.normal(batch.latents.shape[1:], 0, "validation", batch.sample_ids.tolist())
    maps, stats = [], []
    for time in buckets:
        t = torch.full((len(batch),), time)
        with precision.autocast("32-true", torch.device("cpu")):
            heads = network(
                path.interpolate(batch.latents, noise, t), t, batch.conditioning()
            ).heads
        if MAP not in heads or STATISTICS not in heads:
            raise DataError("the student has no head for Sol's map", where=str(checkpoint.path))
        maps.append(heads[MAP].float())
        stats.append(heads[STATISTICS].float())
    return Importance(
        buckets,
        batch.captions,
        _of_mean_one(batch.experts["sol.spatial"]),
        _of_mean_one(torch.stack(maps, 1)),
        batch.experts["sol.stats"],
        torch.stack(stats, 1),
        _pixels(batch, checkpoint.config),
        checkpoint.step,
    )


def _cached(run: RunFiles, samples: int) -> tuple[Batch, list[float]]:
    """The first samples of the first store that has Sol's features, and its bucket times.

    Validation comes first, but often only training samples have features.
    """
    if not isinstance(run.get("experts", EXPERT), Mapping):
        raise DataError("this run has no Sol expert", where=str(run.folder))
    sources = run.get("data", "sources")
    nodes = list(sources.values()) if isinstance(sources, Mapping) else []
    roots = [Path(str(n["cache"])) for n in nodes if isinstance(n, Mapping) and "cache" in n]
    for folder in (root / split for root in roots for split in ("validation", "train")):
        if not (folder / EXPERT).is_dir():
            continue
        dataset = CachedDataset(CacheStore.open(folder), [EXPERT])
        batch = dataset.__getitems__(list(range(min(samples, len(dataset)))))
        count = batch.experts["sol.spatial"].shape[1]
        times = run.get("experts", EXPERT, "t_buckets") or T_BUCKETS
        if len(times) != count:
            raise DataError(f"{len(times)} times for {count} cached buckets", where=str(folder))
        return batch, [float(time) for time in times]
    named = ", ".join(map(str, roots)) or "no source"
    raise DataError(f"no cache with Sol's features: {named}", where=str(run.folder))


def _network(checkpoint: directory.Checkpoint) -> Any:
    outline, _ = described_parts.network(checkpoint, outline=True)
    count = sum(p.numel() for p in outline.parameters())
    if count > LARGEST:
        raise DataError(
            f"a student of {count:,} parameters is too large for this page",
            where=str(checkpoint.path),
        )
    network, saved = described_parts.network(checkpoint)
    directory.load_weights(network, checkpoint.weights("averaged"), str(checkpoint.path), saved)
    return network.eval().float()


def _of_mean_one(maps: Tensor) -> Tensor:
    maps = maps.float()
    return maps / maps.mean((-2, -1), keepdim=True).clamp_min(1e-12)


def _pixels(batch: Batch, config: Mapping[str, Any]) -> Tensor | None:
    """The samples' pictures, if their latents are all pixels: then decoding is cheap."""
    codec = build_codec(config["codec"]["name"], config["codec"]["config"])
    spec = codec.latent_spec
    if spec.channels != 3 * spec.downsample**2:
        return None
    return codec.decode(batch.latents).clamp(-1, 1)
