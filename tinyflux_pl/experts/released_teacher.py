"""A published network as a teacher of velocities, built by its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    denoiser: Any = network(latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path)
    hashes = [known_sha256(file) for file in denoiser.weight_files]
    return Teacher(denoiser, codec, text, name, hash_json(hashes) if hashes else "random")
