"""A published network as a teacher of velocities, built by its family."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch

from tinyflux_pl.core.fingerprint import hash_json
from tinyflux_pl.core.protocols import Codec, Denoiser, Path, TextEncoder
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.weights.headers import known_sha256


def released(
    name: str, network: Callable[..., Denoiser], path: Path, codec: Codec, text: TextEncoder
) -> Teacher:
    """The teacher around the network that `network(latent_spec, text_spec, path)` builds.

    Its codec and text encoder are those of its release. Raises as the builder does.
    """
    read = functools.partial(
        network, latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path
    )
    with torch.device("meta"):
        skeleton: Any = read()
    return Teacher(skeleton, codec, text, name, identity(skeleton.weight_files), read=read)


def identity(weight_files: Sequence[FilePath]) -> str:
    """The identity of a release's weights by the content of their files."""
    hashes = [known_sha256(file) for file in weight_files]
    return hash_json(hashes) if hashes else "random"
