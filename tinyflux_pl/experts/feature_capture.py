"""What every extractor does: noise the image at the teacher's own clock, run it in bounded batches, check."""

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

    At bucket t_k the teacher sees x = alpha(tau) latents + sigma(tau) noise with tau the time of its own
    path at which the signal to noise ratio is the student's at t_k. The noise is a function of (seed,
    sample, bucket) alone. clock="literal" repeats the original instead: pure noise, timestep 1000 t_k.
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
            raise ConfigError(f"no clock {clock!r}", where=f"experts.{self.name}.clock", cure=f"one of {CLOCKS}")
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}", where=f"experts.{self.name}", cure="at least 1")
        self.teacher, self.student_path, self.clock = teacher, student_path, clock
        self.t_buckets, self.seed, self.max_batch = tuple(float(t) for t in t_buckets), seed, max_batch

    def fingerprint(self) -> dict[str, Any]:
        """What decides the features; the batch size does not."""
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
        """As many more like this one, each with a network of its own: to be used at the same time."""
        made = [copy.copy(self) for _ in range(count)]
        for extractor in made:
            extractor.teacher = replace(self.teacher, network=copy.deepcopy(self.teacher.denoiser))
        return made

    @property
    def device(self) -> torch.device:
        """Where the teacher runs."""
        return self.teacher.device

    def times(self) -> Tensor:
        """The teacher's time (K,) at each bucket, fp32."""
        t = torch.tensor(self.t_buckets, dtype=torch.float32)
        if self.clock == "literal":
            return literal_times(t, self.teacher.denoiser)
        return self.teacher.denoiser.path.time_of_log_snr(self.student_path.log_snr(t))

    @torch.no_grad()
    def extract(self, latents: Tensor, text: TextEmbeddings, sample_ids: Sequence[int]) -> dict[str, Tensor]:
        """The teacher's latents (B, C, H, W), its text and the samples' ids -> "name.column": (B, K, ...) fp32."""
        buckets, device, dtype = len(self.t_buckets), self.teacher.device, self.teacher.dtype
        times, clean = self.times(), latents.float().cpu()
        pairs = [(row, k) for row in range(len(latents)) for k in range(buckets)]
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(pairs), self.max_batch):
            rows, ks = (list(part) for part in zip(*pairs[start : start + self.max_batch], strict=True))
            tau = times[ks]
            shape = latents.shape[1:]
            noise = torch.cat(
                [rng.normal(shape, self.seed, "extraction", [sample_ids[r]], k) for r, k in zip(rows, ks, strict=True)]
            )
            matched = self.clock == "matched"
            x = self.teacher.denoiser.path.interpolate(clean[rows], noise, tau) if matched else noise
            told = text.select(torch.tensor(rows, device=text.tokens.device)).to(device, dtype)
            parts.append(self.capture(x.to(device, dtype), tau.to(device), Conditioning(told)))
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return {f"{self.name}.{key}": value.unflatten(0, (len(latents), buckets)) for key, value in joined.items()}

    @abstractmethod
    def capture(self, x: Tensor, tau: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """One batch of the teacher's inputs -> column: (rows, ...), finite."""


def require_finite(features: Tensor, what: str) -> Tensor:
    """The features, or CaptureError: constants are never cached in place of what could not be captured."""
    if not bool(torch.isfinite(features).all()):
        raise CaptureError(
            f"{what} are not finite",
            where="the teacher's forward pass",
            cure="run the teacher in float32 or bfloat16, and check its weights and its latents",
        )
    return features
