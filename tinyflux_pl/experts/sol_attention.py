"""Sol's extractor: statistics of every self-attention of the teacher, computed in tiles."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CaptureError
from tinyflux_pl.core.precision import no_autocast
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.denoisers.unet_attention import UNetAttention
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.feature_capture import BucketExtractor, require_finite
from tinyflux_pl.experts.literal import literal_map, literal_statistics
from tinyflux_pl.experts.sol_statistics import LayerStatistics, area_map
from tinyflux_pl.experts.teacher import Teacher

TILE_SIZE = 2**24  # attention values in memory at once: 64 MiB in fp32


class StatisticsAttention(UNetAttention):
    """The teacher's attention, recording statistics of each layer without attention maps."""

    def __init__(self, grids: dict[int, tuple[int, int]]) -> None:
        self.grids = grids
        self.layers: list[LayerStatistics] = []

    def observe(self, attn: Any, query: Tensor, key: Tensor) -> None:
        """Record the statistics of a self-attention from its projected query and key."""
        if query.shape[2] > 1:  # attention over a single token has no statistics
            self.layers.append(self._layer(query, key, attn.scale))

    def _layer(self, query: Tensor, key: Tensor, scale: float) -> LayerStatistics:
        batch, heads, count, _ = query.shape
        if count not in self.grids:
            raise CaptureError(
                f"a self-attention over {count} tokens fits none of {sorted(self.grids.values())}",
                where="the teacher's UNet",
                cure="choose a teacher that halves its resolution from level to level",
            )
        layer = LayerStatistics(batch, self.grids[count], query.device)
        step = max(1, TILE_SIZE // (batch * heads * count))
        with no_autocast(query.device):
            keys = key.float().transpose(-1, -2) * scale
            for start in range(0, count, step):
                logits = query[:, :, start : start + step].float() @ keys
                layer.add(logits.softmax(-1).mean(1), start)
        return layer


def grids_of(height: int, width: int) -> dict[int, tuple[int, int]]:
    """Number of tokens -> (height, width), for latents halved (rounding up) at each level."""
    grids = {}
    while height * width > 1:
        grids[height * width] = (height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return grids


@contextmanager
def recording(denoiser: UNetDenoiser, recorder: StatisticsAttention) -> Generator[None]:
    """Install `recorder` at every self-attention inside the block."""
    before = dict(denoiser.unet.attn_processors)
    processors = {
        name: recorder if name.endswith("attn1.processor") else processor
        for name, processor in before.items()
    }
    denoiser.unet.set_attn_processor(processors)
    try:
        yield
    finally:
        denoiser.unet.set_attn_processor(before)


def capture_layers(
    denoiser: UNetDenoiser, x: Tensor, t: Tensor, cond: Conditioning
) -> list[LayerStatistics]:
    """Every self-attention's statistics in one forward pass; CaptureError if there is none."""
    recorder = StatisticsAttention(grids_of(x.shape[-2], x.shape[-1]))
    with recording(denoiser, recorder):
        denoiser(x, t, cond)
    if not recorder.layers:
        raise CaptureError(
            "no self-attention ran",
            where=denoiser.name,
            cure="choose a teacher with self-attention (attn1)",
        )
    return recorder.layers


def summarise(
    layers: Sequence[LayerStatistics], size: int, literal: bool = False, stats: int = 4
) -> tuple[Tensor, Tensor]:
    """Mean over layers: statistics (B, stats) and a map (B, size, size) of sum 1.

    stats: 4, or 3 as the original. literal: the original's map too.
    """
    statistics = torch.stack([layer.statistics() for layer in layers]).mean(0)
    if literal or stats == 3:
        statistics = literal_statistics(statistics)
    if literal:
        maps = [literal_map(layer.importance(), size) for layer in layers]
    else:
        maps = [area_map(layer.importance() / layer.count, size) for layer in layers]
    total = torch.stack(maps).mean(0)
    total = total / total.sum((1, 2), keepdim=True)
    return require_finite(statistics, "Sol's statistics"), require_finite(total, "Sol's maps")


class SolAttention(BucketExtractor):
    """Extracts sol.stats (B, K, 4) and sol.spatial (B, K, size, size).

    The statistics are locality, entropy, clustering and sparsity. With stats=3, and always with
    clock="literal", they are the original's locality, entropy and 1 - entropy.
    """

    name = "sol"

    def __init__(
        self,
        teacher: Teacher,
        student_path: Path,
        t_buckets: Sequence[float] = T_BUCKETS,
        seed: int = 0,
        max_batch: int = 64,
        clock: str = "matched",
        size: int = 8,
        stats: int = 4,
    ) -> None:
        super().__init__(teacher, student_path, t_buckets, seed, max_batch, clock)
        self.size = size
        self.stats = stats

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines the statistics."""
        three_matched = self.stats == 3 and self.clock == "matched"
        stats = {"stats": 3} if three_matched else {}  # absent from older caches otherwise
        return {**super().fingerprint(), "size": self.size, **stats}

    def capture(self, x: Tensor, tau: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """stats (rows, 4 or 3) and spatial (rows, size, size)."""
        layers = capture_layers(self.teacher.denoiser, x, tau, cond)
        statistics, spatial = summarise(layers, self.size, self.clock == "literal", self.stats)
        return {"stats": statistics, "spatial": spatial}
