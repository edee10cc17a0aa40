"""The contracts between rooms. Nothing else in the house asks which family a part is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.specs import ExpertSpec, LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, Conditioning, Prediction, PromptLength, TextEmbeddings


@runtime_checkable
class Path(Protocol):
    """The owner of the clock: x_t = alpha(t) * data + sigma(t) * noise."""

    name: str
    t_noise: float
    t_data: float

    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def log_snr(self, t: Tensor) -> Tensor: ...
    def time_of_log_snr(self, log_snr: Tensor) -> Tensor: ...
    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...
    def velocity(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...


@runtime_checkable
class Denoiser(Protocol):
    """x_t (B, C, H, W) and t (B,) in its own path's time -> Prediction in its own space.

    denoisers.denoiser.DenoiserModule says what each answer means, and gives the usual ones.
    """

    name: str
    path: Path
    prediction: str  # velocity | epsilon | x0 | v
    latent_spec: LatentSpec
    text_spec: TextSpec
    ports: tuple[str, ...]
    patch_size: int
    image_size: int | None
    reads_guidance: bool
    reads_references: bool
    reference_size: str | None
    inpaint_channels: int
    overflows: str

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction: ...
    def config_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class Codec(Protocol):
    """Images in [-1, 1] <-> normalised latents; scale and shift live inside."""

    name: str
    latent_spec: LatentSpec

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h8 w8"]: ...
    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b 3 h w"]: ...
    def fingerprint(self) -> dict[str, Any]: ...
    def to(self, device: Any) -> Any: ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts -> TextEmbeddings; `null` is the one unconditional of training and sampling."""

    name: str
    text_spec: TextSpec

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings: ...
    def null(self) -> TextEmbeddings: ...
    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]: ...
    def fingerprint(self) -> dict[str, Any]: ...
    def to(self, device: Any) -> Any: ...


@runtime_checkable
class Objective(Protocol):
    """A batch and a denoiser -> named loss terms, each already weighted; their sum is the loss."""

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]: ...


@runtime_checkable
class Expert(Protocol):
    """A teacher's cached knowledge: what is cached, which ports it fills, its loss, its ramps.

    `ports` maps the batch's buckets ("lune.features": (B, K, E), ...) at t (B,) to what the ports get;
    `losses` compares the denoiser's heads with it, over the samples that have this expert.
    """

    name: str
    spec: ExpertSpec

    def ports(self, experts: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]: ...
    def losses(self, heads: dict[str, Tensor], targets: dict[str, Tensor], present: Tensor) -> Tensor: ...
    def weight_at(self, step: int) -> float: ...
    def dropout_at(self, step: int) -> float: ...
    def port_options(self) -> dict[str, Any]: ...
    def extractor(self, teacher: Any, student_path: Path, seed: int) -> Any: ...


@dataclass(frozen=True)
class Record:
    """One training example before encoding: RGB pixels (H, W, 3) uint8, caption, optional mask.

    `references` are other pictures (Hr, Wr, 3) that the denoiser is shown; `hole` (H, W) bool is True where it is
    to paint, and then it is shown the rest.
    """

    image: np.ndarray
    caption: str
    sample_id: int
    mask: np.ndarray | None = None
    source: str = ""  # the file it came from, for messages
    attributes: dict[str, Any] = field(default_factory=dict)
    references: tuple[np.ndarray, ...] = ()
    hole: np.ndarray | None = None


@runtime_checkable
class Records(Protocol):
    """An indexed source of records; index order is stable, reading is lazy.

    `reads_files` is True if a record costs a read from disk. `sample_keys` identifies each record by plain data
    without reading it, or is None where only reading can tell.
    """

    name: str
    reads_files: bool

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...
    def fingerprint(self) -> dict[str, Any]: ...
    def sample_keys(self) -> list[Any] | None: ...


@runtime_checkable
class Verifier(Protocol):
    """Reads pictures back and compares them with the claims of their prompts; see data.verifier."""

    claims: tuple[str, ...]

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]: ...

    def check(self, images: Float[Tensor, "b 3 h w"], prompts: Sequence[str]) -> dict[str, Tensor]: ...
