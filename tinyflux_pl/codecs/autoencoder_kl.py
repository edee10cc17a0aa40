"""diffusers' AutoencoderKL as a codec: FLUX.1, SD3, SDXL and Stable Diffusion 1.5."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.codecs import autoencoder_settings, autoencoder_weights, tiled_autoencoder, tiles
from tinyflux_pl.codecs import autoencoder_simulation as simulation
from tinyflux_pl.codecs.autoencoder_layout import ORIGINAL
from tinyflux_pl.codecs.autoencoder_skeleton import skeleton_of
from tinyflux_pl.codecs.latent_scaling import scale_of, statistics_of
from tinyflux_pl.codecs.posterior import mean_and_deviation
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.specs import LatentSpec
from tinyflux_pl.weights.headers import known_sha256
from tinyflux_pl.weights.load_release import WeightSource, fill


class AutoencoderKLCodec(Codec):
    """Diffusers' AutoencoderKL with normalised latents (z - shift) * scale.

    Scale and shift are those of the autoencoder's config; if that has per-channel mean and
    deviation, latents are (z - mean) * scale / deviation. `weights` is a folder in the diffusers
    layout or a repository (then `revision` is its commit), whose `subfolder` ("": the root) holds
    config.json and the safetensors; or a single safetensors file in either layout, of the
    autoencoder alone or of a whole checkpoint, and then `structure` stands for config.json. A file
    without an autoencoder stands for its folder. `variant` (fp16, ...) selects files of a folder.
    An EDM network's latents are also divided by `data_deviation`. scaling="unshifted" leaves the
    shift out, as TinyFlux's published weights need. Headers are checked first, weights are read on
    first use, in `dtype`; latents are fp32. `tile`: side of overlapping tiles in pixels, or None.
    Raises ConfigError, HubError, CheckpointMismatch, CorruptCheckpoint.
    """

    kind = "AutoencoderKL"  # the class of diffusers
    original = ORIGINAL  # of single files
    # which no weight's shape tells
    deciding: ClassVar[dict[str, Any]] = {"act_fn": "silu", "norm_num_groups": 32}

    def __init__(
        self,
        weights: str | None,
        subfolder: str = "vae",
        revision: str | None = None,
        scaling: str = "shifted",
        dtype: str = "float32",
        name: str = "autoencoder_kl",
        structure: dict[str, Any] | None = None,
        variant: str | None = None,
        data_deviation: float = 1.0,
        tile: int | None = None,
        posterior: str = "mean",
    ) -> None:
        autoencoder_settings.require_settings(scaling, dtype, data_deviation, posterior)
        tiles.require_tile(tile)
        self.weights = None if weights is None else str(weights)
        self.subfolder, self.revision, self.structure = subfolder, revision, structure
        self.scaling, self.dtype, self.name, self.variant = scaling, dtype, name, variant
        self.data_deviation, self.tile, self.posterior = data_deviation, tile, posterior
        self.device = torch.device("cpu")
        self._model: Any = None
        self.simulation_seed: int | None = None  # of the random weights of `simulated`

    def simulated(self, seed: int) -> "AutoencoderKLCodec":
        """Itself with levels of 8 channels and random weights: the same latents' shape."""
        structure = simulation.small(self.structure or self.vae_config)
        changed = {"weights": None, "structure": structure, "dtype": "float32"}
        codec = type(self)(**{**self.config(), **changed})
        codec.simulation_seed = seed
        return codec

    def write_release(self, folder: Path) -> None:
        """Write config.json and weights into `subfolder` of a release's folder."""
        self._loaded().save_pretrained(folder / self.subfolder, safe_serialization=True)

    @cached_property
    def source(self) -> WeightSource:
        """The files that hold the autoencoder, judged by their headers."""
        if self.weights is None:
            cure = "codec.weights=FOLDER, which holds vae/, or FILE.safetensors"
            raise ConfigError("no weights for the autoencoder", where="codec.weights", cure=cure)
        source = autoencoder_weights.locate(
            self.weights, self.revision, self.subfolder, self.variant
        )
        if source.config is None and self.structure is None:
            cure = "give codec.structure, or a folder in diffusers' layout"
            raise ConfigError(
                "a file alone does not say what it holds", where=self.weights, cure=cure
            )
        config = self.structure if source.config is None else source.config
        autoencoder_weights.require_fit(
            self._skeleton_of(config or {}), source, self.original, config or {}
        )
        return source

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        """config.json, or the structure given for a single file."""
        if self.weights is None and self.structure is not None:
            return self.structure
        return self.source.config or self.structure or {}

    @cached_property
    def latent_spec(self) -> LatentSpec:
        """Channels, and a halving between each two levels."""
        config = self.vae_config
        _ = self.scale, self.statistics  # which refuse numbers that mean nothing
        return LatentSpec(
            config.get("latent_channels", 4), 2 ** (len(config.get("block_out_channels", [64])) - 1)
        )

    @cached_property
    def scale(self) -> float:
        """scaling_factor (or diffusers' default), over data_deviation."""
        return scale_of(self.vae_config, self.name) / self.data_deviation

    @cached_property
    def shift(self) -> float:
        """shift_factor, 0 where there is none or where it is left out."""
        return float((self.scaling == "shifted" and self.vae_config.get("shift_factor")) or 0.0)

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Per-channel latents_mean and latents_std (C, 1, 1), as of Playground; None without."""
        return statistics_of(self.vae_config, self.scaling, self.name)

    def encode(
        self, images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b c h8 w8"] | None = None
    ) -> Float[Tensor, "b c h8 w8"]:
        """The posterior's mode, or with standard normal `noise` (from core.rng) a sample of it."""
        mean, deviation = self._moments(images)
        return self._normalised(mean if noise is None else mean + deviation * noise.to(mean))

    def encode_moments(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of normalised latents; without posterior="sampled" the mean alone."""
        mean, deviation = self._moments(images)
        latents = self._normalised(mean)
        if self.posterior == "mean":
            return latents, None
        return latents, self._normalised(mean + deviation) - latents

    def _moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        factor = self.latent_spec.downsample
        height, width = images.shape[-2:]
        if height % factor or width % factor:
            cure = f"use sides that are multiples of {factor}"
            raise ConfigError(f"{height} x {width} pixels", where=self.name, cure=cure)
        x = images.to(self.device, getattr(torch, self.dtype))
        moments = tiled_autoencoder.encode(self._loaded(), x, self.tile, self._halvings)
        return mean_and_deviation(moments)

    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b 3 h w"]:
        """Normalised latents -> images, not clamped."""
        z = self._restored(latents.to(self.device).float()).to(getattr(torch, self.dtype))
        return tiled_autoencoder.decode(self._loaded(), z, self.tile, self._halvings)

    @property
    def _halvings(self) -> float:
        """The picture's side over that of the autoencoder's own latents."""
        return 2.0 ** (len(self.vae_config.get("block_out_channels", [64])) - 1)

    def _normalised(self, z: Tensor) -> Tensor:
        if self.statistics is None:
            return (z - self.shift) * self.scale
        mean, deviation = (part.to(z) for part in self.statistics)
        return (z - mean) * self.scale / deviation

    def _restored(self, latents: Tensor) -> Tensor:
        if self.statistics is None:
            return latents / self.scale + self.shift
        mean, deviation = (part.to(latents) for part in self.statistics)
        return latents * deviation / self.scale + mean

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this codec."""
        return {
            "weights": self.weights,
            "subfolder": self.subfolder,
            "revision": self.revision,
            "scaling": self.scaling,
            "dtype": self.dtype,
            "name": self.name,
            "structure": self.structure,
            "variant": self.variant,
            **({} if self.data_deviation == 1 else {"data_deviation": self.data_deviation}),
            **({} if self.tile is None else {"tile": self.tile}),
            **({} if self.posterior == "mean" else {"posterior": self.posterior}),
        }

    @cached_property
    def _sha256(self) -> str:
        if self.simulation_seed is not None:
            return f"simulated from seed {self.simulation_seed}"
        return "+".join(known_sha256(file) for file in self.source.weights.files)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the latents: weight hash, normalisation, dtype, config."""
        names = () if self.statistics is None else ("latents_mean", "latents_std")
        return {
            "codec": "autoencoder_kl",
            "weights": self._sha256,
            "scale": self.scale,
            "shift": self.shift,
            "dtype": self.dtype,
            **self._deciding_settings(),
            **{name: self.vae_config[name] for name in names},
        }

    def _deciding_settings(self) -> dict[str, Any]:
        config, defaults = self.vae_config, self.deciding
        return autoencoder_settings.deciding(config, defaults, self.tile, self.posterior)

    def to(self, device: Any) -> "AutoencoderKLCodec":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        if self._model is not None:
            self._model.to(self.device)
        return self

    def free(self) -> None:
        """Release the weights; the next use reads them again."""
        self._model = None

    def skeleton(self) -> nn.Module:
        """The autoencoder without values, on the meta device."""
        return self._skeleton_of(self.vae_config)

    def _skeleton_of(self, config: dict[str, Any]) -> nn.Module:
        return skeleton_of(self.kind, config, self.weights or "codec.structure")

    def _loaded(self) -> Any:
        if self._model is not None:
            return self._model
        autoencoder_settings.require_no_overflow(self.dtype, self.vae_config, self.name)
        dtype = getattr(torch, self.dtype)
        if self.simulation_seed is not None:
            self._model = simulation.network(self.skeleton(), self.vae_config, self.simulation_seed)
            self._model.to(self.device)
        elif self.device.type == "meta":  # to plan with; no weight is read
            # diffusers' own warns
            self._model = nn.Module.to(self.skeleton(), dtype).eval()
        else:
            source = self.source
            model = fill(self.skeleton(), source, dtype, self.original, self.vae_config)
            self._model = model.to(self.device).eval().requires_grad_(False)
        return self._model
