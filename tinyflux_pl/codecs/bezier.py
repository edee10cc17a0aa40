"""A trained autoencoder as a codec, its latents normalised by their stored statistics."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.codecs import bezier_checkpoint
from tinyflux_pl.codecs.bezier_checkpoint import AutoencoderCheckpoint
from tinyflux_pl.codecs.trained_autoencoder import TrainedAutoencoder
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.specs import LatentSpec


class BezierCodec(Codec):
    """Latents (mean - latent_mean) / latent_std of a trained autoencoder, without noise.

    `checkpoint` is a checkpoint of its training, or the run's folder: then its newest. `sha256` is
    the hash of its weights, which a model's checkpoint names: CheckpointMismatch for others.
    Weights are read on first use.
    """

    name = "bezier"

    def __init__(self, checkpoint: str | None, sha256: str | None = None) -> None:
        self.checkpoint, self.sha256 = checkpoint, sha256
        self.device = torch.device("cpu")
        self._network: TrainedAutoencoder | None = None

    @cached_property
    def _source(self) -> AutoencoderCheckpoint:
        source = bezier_checkpoint.find(self.checkpoint)
        if self.sha256 not in (None, source.sha256):
            raise CheckpointMismatch(
                "the codec's weights are not those that the model was trained with",
                where=str(source.folder),
                cure="restore that checkpoint of the autoencoder",
            )
        return source

    @property
    def latent_spec(self) -> LatentSpec:  # type: ignore[override]
        """Channels, and pixels along a cell."""
        config = self._source.config
        return LatentSpec(config.latent_channels, config.downsample)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h8 w8"]:
        """Images in [-1, 1] -> normalised latents."""
        network = self._loaded()
        mean, _ = network.encoder(images)
        return (mean - _channels(network.latent_mean)) / _channels(network.latent_std)

    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b 3 h w"]:
        """Normalised latents -> images."""
        network = self._loaded()
        restored = latents * _channels(network.latent_std) + _channels(network.latent_mean)
        return network.decoder(restored)

    def config(self) -> dict[str, Any]:
        """The checkpoint by its absolute path, with the hash of its weights."""
        return {"checkpoint": str(self._source.folder), "sha256": self._source.sha256}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the latents."""
        return {"codec": self.name, "sha256": self._source.sha256}

    def to(self, device: torch.device | str) -> BezierCodec:
        """Move, now or when the weights are read."""
        before, self.device = self.device, torch.device(device)
        if before.type == "meta":
            self._network = None
        if self._network is not None:
            self._network.to(self.device)
        return self

    def free(self) -> None:
        """Release the weights; the next use reads them again."""
        self._network = None

    def skeleton(self) -> nn.Module:
        """The network without values, on the meta device."""
        return self._source.skeleton()

    def _loaded(self) -> TrainedAutoencoder:
        if self._network is None:
            on_meta = self.device.type == "meta"
            source = self._source
            self._network = source.skeleton() if on_meta else source.network(self.device)
        return self._network


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
