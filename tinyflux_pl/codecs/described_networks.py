"""The autoencoders that checkpoints describe, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.codecs.bezier_networks import AutoencoderConfig
from tinyflux_pl.codecs.kl_networks import KLSizes
from tinyflux_pl.codecs.trained_autoencoder import AutoencoderSizes
from tinyflux_pl.core.specs import LatentSpec

KINDS: dict[str, type] = {kind.name: kind for kind in (AutoencoderConfig, KLSizes)}
ADDED_LATER = {AutoencoderConfig.name: {"activation": "bezier"}}  # keys that older files lack


def described_sizes(name: str, sizes: Mapping[str, Any]) -> AutoencoderSizes:
    """The sizes in a file's description; KeyError for an unknown name or wrong keys."""
    kind = KINDS[name]
    completed = {**ADDED_LATER.get(name, {}), **sizes}
    expected = {field.name for field in fields(kind)}
    if completed.keys() != expected:
        raise KeyError(", ".join(sorted(completed.keys() ^ expected)))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in completed.items()}
    return kind(**values)


def described_networks(
    name: str, config: Mapping[str, Any], latent_spec: LatentSpec
) -> AutoencoderNetworks:
    """The networks that `AutoencoderNetworks.config_dict` describes, newly initialised."""
    sizes = described_sizes(name, config["autoencoder"])
    return AutoencoderNetworks(sizes, config["critic"], latent_spec)
