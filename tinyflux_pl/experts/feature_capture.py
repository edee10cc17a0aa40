"""The base of extractors: run a teacher on noised latents at each bucket, in bounded batches."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptureError, ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.literal import literal_times
from tinyflux_pl.experts.teacher import Teacher

CLOCKS = ("matched", "literal")


class BucketExtractor(ABC):
    """Features of real noised latents, one set for each of the student's buckets.

    At bucket t_k the teacher's input is x = alpha(tau) latents + sigma(tau) noise, with tau the
    time of the teacher's path at which its SNR equals the student's at t_k. The noise is a function
    of (seed, sample, bucket) alone. clock="literal" repeats the original: pure noise, timestep 1000
    t_k.
    """

    name: str

    def __init__(
        self,
        teacher: Teacher,
        student_path: Path,
        t_buckets: Sequence[float] = T_BUCKETS,
        seed: int = 0,
        max_batch: int = 64,
        clock: str = "matched",
    ) -> None:
        if clock not in CLOCKS:
            raise ConfigError(
                f"no clock {clock!r}",
                where=f"experts.{self.name}.clock",
                cure=f"choose one of {', '.join(CLOCKS)}",
            )
        if max_batch < 1:
            raise ConfigError(
                f"max_batch is {max_batch}", where=f"experts.{self.name}", cure="at least 1"
            )
        self.teacher = teacher
        self.student_path = student_path
        self.clock = clock
        self.t_buckets = tuple(float(t) for t in t_buckets)
        self.seed = seed
        self.max_batch = max_batch

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines the features; the batch size does not."""
        return {
            "expert": self.name,
            "version": 1,
            "teacher": self.teacher.fingerprint(),
            "student_path": {"name": self.student_path.name, "config": self.student_path.config()},
            "t_buckets": list(self.t_buckets),
            "seed": self.seed,
            "clock": self.clock,
        }

    def to(self, device: Any) -> "BucketExtractor":
        """Move the teacher's denoiser."""
        self.teacher.to(device)
        return self

    def copies(self, count: int) -> list["BucketExtractor"]:
        """Copies with networks of their own, for concurrent use."""
        extractors = [copy.copy(self) for _ in range(count)]
        for extractor in extractors:
            extractor.teacher = replace(self.teacher, network=copy.deepcopy(self.teacher.denoiser))
        return extractors

    @property
    def device(self) -> torch.device:
        """The device of the teacher."""
        return self.teacher.device

    def times(self) -> Tensor:
        """The teacher's time (K,) at each bucket, fp32."""
        t = torch.tensor(self.t_buckets, dtype=torch.float32)
        if self.clock == "literal":
            return literal_times(t, self.teacher.denoiser)
        return self.teacher.denoiser.path.time_of_log_snr(self.student_path.log_snr(t))

    @torch.no_grad()
    def extract(
        self, latents: Tensor, text: TextEmbeddings, sample_ids: Sequence[int]
    ) -> dict[str, Tensor]:
        """The teacher's latents (B, C, H, W) and text -> "name.column": (B, K, ...) fp32."""
        num_buckets = len(self.t_buckets)
        device, dtype = self.teacher.device, self.teacher.dtype
        times = self.times()
        clean = latents.float().cpu()
        shape = latents.shape[1:]
        pairs = [(row, k) for row in range(len(latents)) for k in range(num_buckets)]
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(pairs), self.max_batch):
            batch = pairs[start : start + self.max_batch]
            rows = [row for row, _ in batch]
            ids, buckets = [sample_ids[row] for row in rows], [k for _, k in batch]
            tau = times[buckets]
            noise = extraction_noise(shape, self.seed, ids, buckets)
            x = noise
            if self.clock == "matched":
                x = self.teacher.denoiser.path.interpolate(clean[rows], noise, tau)
            row_text = text.select(torch.tensor(rows, device=text.tokens.device))
            cond = Conditioning(row_text.to(device, dtype))
            parts.append(self.capture(x.to(device, dtype), tau.to(device), cond))
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        sizes = (len(latents), num_buckets)
        return {f"{self.name}.{key}": value.unflatten(0, sizes) for key, value in joined.items()}

    @abstractmethod
    def capture(self, x: Tensor, tau: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """One batch of the teacher's inputs -> column: (rows, ...), all finite."""


def extraction_noise(
    shape: Sequence[int], seed: int, sample_ids: Sequence[int], buckets: Sequence[int]
) -> Tensor:
    """The noise (B, *shape) that a teacher saw for each pair of sample and bucket, fp32."""
    pairs = zip(sample_ids, buckets, strict=True)
    rows = [rng.normal(shape, seed, "extraction", [sample], k) for sample, k in pairs]
    return torch.cat(rows) if rows else torch.empty(0, *shape)


def require_finite(features: Tensor, name: str) -> Tensor:
    """Return the features; CaptureError, with their plural `name`, if any value is not finite."""
    if not bool(torch.isfinite(features).all()):
        raise CaptureError(
            f"{name} are not finite",
            where="the teacher's forward pass",
            cure="run the teacher in float32 or bfloat16, and check its weights and its latents",
        )
    return features
