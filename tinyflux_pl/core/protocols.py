"""The contracts between packages: everything that callers may use of a path, codec, ...

A class that derives from `Codec` or `TextEncoder` inherits the defaults of the optional members.
`tests/core/test_protocols.py` builds a class from each alone and runs it through the real callers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.core.block_stack import StackBlock
from tinyflux_pl.core.record import Record as Record  # the contract of a dataset is there
from tinyflux_pl.core.record import Records as Records
from tinyflux_pl.core.specs import ExpertSpec, LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, Conditioning, Prediction, PromptLength, TextEmbeddings


@runtime_checkable
class Path(Protocol):
    """The owner of the clock: x_t = alpha(t) * data + sigma(t) * noise.

    `t_noise` and `t_data` are the times of pure noise and clean data; rates are derivatives with
    respect to t. `diffusion.paths.build_path(name, config())` rebuilds the path.
    """

    @property
    def name(self) -> str: ...
    @property
    def t_noise(self) -> float: ...
    @property
    def t_data(self) -> float: ...

    def alpha(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def alpha_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def sigma_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...
    def interpolate(self, data: Tensor, noise: Tensor, t: Float[Tensor, " b"]) -> Tensor: ...
    def velocity(self, data: Tensor, noise: Tensor, t: Float[Tensor, " b"]) -> Tensor: ...
    def config(self) -> dict[str, Any]: ...


@runtime_checkable
class Denoiser(Protocol):
    """x_t (B, C, H, W) and t (B,) in its own path's time -> Prediction in its own space.

    `denoisers.denoiser.DenoiserModule` documents each member and gives the defaults. A denoiser
    that is trained is a torch module too; sampling needs its `parameters` to know the device.
    """

    name: str
    lora_targets: tuple[str, ...]
    path: Path
    prediction: str  # velocity | epsilon | x0 | v
    latent_spec: LatentSpec
    text_spec: TextSpec
    ports: tuple[str, ...]
    patch_size: int
    image_size: int | None
    reads_guidance: bool
    reads_references: bool
    reference_parts: tuple[str, ...]
    reads_position_ids: bool
    reference_size: str | None
    inpaint_channels: int
    overflows: str
    weight_files: tuple[FilePath, ...]

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction: ...
    def require_size(self, height: int, width: int) -> None: ...
    def require_trainable(self) -> None: ...
    def hint_shape(self, height: int, width: int) -> tuple[int, int, int] | None: ...
    def enable_gradient_checkpointing(self) -> None: ...
    def block_stack(self) -> Sequence[StackBlock]: ...
    def port_gates(self) -> dict[str, Tensor]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def config_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class Codec(Protocol):
    """Images in [-1, 1] <-> normalised latents; scale and shift live inside.

    `bounds` clamp decoded values. `image_size` (height, width) is the only size it encodes; None:
    any that `latent_spec.downsample` divides. `dtype` is that of its weights. `config()` rebuilds
    it (codecs.registry); `fingerprint()` is plain data that decides the latents.
    """

    name: str
    latent_spec: LatentSpec
    dtype: str = "float32"
    bounds: tuple[float, float] = (-1.0, 1.0)
    image_size: tuple[int, int] | None = None

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h8 w8"]: ...
    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b 3 h w"]: ...
    @abstractmethod
    def config(self) -> dict[str, Any]: ...
    @abstractmethod
    def fingerprint(self) -> dict[str, Any]: ...

    def encode_moments(self, images: Float[Tensor, "b _ h w"]) -> tuple[Tensor, Tensor | None]:
        """Latents (B, C, h, w) to cache and the deviation around them; None: they are exact."""
        return self.encode(images), None

    def to(self, device: torch.device | str) -> Codec:
        """Move to a device, now or when weights are loaded."""
        return self

    def free(self) -> None:
        """Release loaded weights; the next use reads them again."""

    def simulated(self, seed: int) -> Codec:
        """Itself in small on random weights; a codec without weights stands for itself."""
        return self

    def skeleton(self) -> nn.Module | None:
        """The network on the meta device, for memory plans; None for a codec without weights."""
        return None


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts -> TextEmbeddings; `null` is the one unconditional of training and sampling.

    `dtype` is that of its weights. `sequential` True: its networks are loaded one at a time; None:
    there is at most one. `condition_argument`: the argument of generate.py in place of prompts;
    None: text. `config()` rebuilds it (text.registry); `fingerprint()` decides the embeddings.
    """

    name: str
    text_spec: TextSpec
    dtype: str = "float32"
    sequential: bool | None = None
    condition_argument: str | None = None

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> TextEmbeddings: ...
    @abstractmethod
    def null(self) -> TextEmbeddings: ...
    @abstractmethod
    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]: ...
    @abstractmethod
    def config(self) -> dict[str, Any]: ...
    @abstractmethod
    def fingerprint(self) -> dict[str, Any]: ...

    @property
    def embedded_spec(self) -> TextSpec:
        """Shapes of what a denoiser reads: of the trained network's output, if there is one."""
        return self.text_spec

    def masks(self, prompts: Sequence[str]) -> Bool[Tensor, "b l"] | None:
        """The masks of `encode` without its networks; None: it cannot tell without them."""
        return None

    def trained_network(self) -> nn.Module | None:
        """A network that trains in the denoiser and embeds what `encode` returns, or None."""
        return None

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move to a device, now or when weights are loaded."""
        return self

    def free(self) -> None:
        """Release loaded weights; the next use reads them again."""

    def simulated(self, seed: int) -> TextEncoder:
        """Itself in small, random; an encoder without weights stands for itself."""
        return self

    def moved_by(self, move: Callable[[str, nn.Module], None]) -> None:
        """Have `move` bring each network (its name, itself) to the device when it is loaded."""

    def skeletons(self) -> Mapping[str, nn.Module]:
        """Its networks by name without values, on the meta device, for memory plans."""
        return {}

    def outlined(self, networks: Mapping[str, nn.Module]) -> TextEncoder | None:
        """Itself with these skeletons, for memory plans: shapes alone; None without networks."""
        return None

    def with_target_ids(self, cond: Conditioning, prompts: Sequence[str]) -> Conditioning:
        """Add position ids and padding mask of the targets, where prompts name sequences."""
        return cond


@runtime_checkable
class Objective(Protocol):
    """A batch and a denoiser -> named loss terms, each already weighted; their sum is the loss."""

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]: ...


@runtime_checkable
class Extractor(Protocol):
    """Latents and text of a teacher's codec and encoder in, an expert's buckets out."""

    name: str
    device: torch.device

    def fingerprint(self) -> dict[str, Any]: ...
    def extract(
        self, latents: Tensor, text: TextEmbeddings, sample_ids: list[int]
    ) -> dict[str, Tensor]: ...


@runtime_checkable
class Expert(Protocol):
    """A teacher's cached knowledge: its arrays, the ports they fill, a loss, ramps and dropout.

    `ports` maps the batch's buckets ("lune.features": (B, K, E), ...) at t (B,) to the contents of
    the ports; `losses` compares the denoiser's heads with them, over the samples that have this
    expert.
    """

    name: str
    spec: ExpertSpec
    columns: Mapping[str, str]  # array -> the port that it fills

    def ports(self, experts: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]: ...
    def losses(
        self, heads: dict[str, Tensor], targets: dict[str, Tensor], present: Tensor
    ) -> Tensor: ...
    def weight_at(self, step: int) -> float: ...
    def dropout_at(self, step: int) -> float: ...
    def port_options(self) -> dict[str, Any]: ...
    def extractor(self, teacher: Any, student_path: Path, seed: int) -> Extractor: ...
