"""Networks in a memory plan: built from structures alone where weights are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tinyflux_pl.config.schema import Job, Node
from tinyflux_pl.weights.hub import REPOSITORY

J = TypeVar("J", bound=Job)

# Keys that describe the network of a file without a config.json.
STRUCTURES = ("structure", "structures")
# Keys that name weights -> the key of their commit.
WEIGHTS = {"weights": "revision", "t5": "t5_revision", "clip": "clip_revision"}


@dataclass(frozen=True)
class PlannedPart:
    """One network: its name, parameters, and the dtype and bytes of its weights."""

    name: str
    parameters: int
    dtype: str
    bytes: int


def planned_parts(
    denoiser: Any,
    codec: Any,
    text: Any,
    encoders: Mapping[str, Any],
    precision: str | None = None,
) -> list[PlannedPart]:
    """The denoiser, and the networks of codec and text encoder, with their weights' bytes.

    `encoders` are the text encoder's skeletons. `precision` stores the denoiser's blocks in fewer
    bits (engine.packing), in place.
    """
    dtypes = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
    dtype = str(next(dtypes)).removeprefix("torch.")
    networks = [("denoiser", denoiser, dtype)]
    autoencoder = codec.skeleton()
    if autoencoder is not None:
        networks.append(("codec", autoencoder, codec.dtype))
    networks += [(f"text: {name}", network, text.dtype) for name, network in encoders.items()]
    parts = [_part(name, network, dtype) for name, network, dtype in networks]
    from tinyflux_pl.denoisers import gguf_linear

    if precision is not None:
        from tinyflux_pl.engine.packing import pack

        pack(denoiser, precision)
        parts[0] = replace(parts[0], dtype=precision)
    if blocks := sorted({layer.kind.name for layer in gguf_linear.kept_layers(denoiser)}):
        count = gguf_linear.num_parameters(denoiser)
        parts[0] = replace(parts[0], parameters=count, dtype=f"GGUF {', '.join(blocks)}")
    # of mixed dtypes: packed weights, and what diffusers keeps in fp32
    stored = sum(parameter.nbytes for parameter in denoiser.parameters())
    parts[0] = replace(parts[0], bytes=stored)
    return parts


def _part(name: str, network: Any, dtype: str) -> PlannedPart:
    from tinyflux_pl.core.precision import check_dtype

    count = sum(parameter.numel() for parameter in network.parameters())
    return PlannedPart(name, count, dtype, count * check_dtype(dtype, name).itemsize)


def codec_bytes(codec: Any) -> int:
    """Bytes of the weights of a codec; 0 for one without weights."""
    autoencoder = codec.skeleton()
    return 0 if autoencoder is None else _part("codec", autoencoder, codec.dtype).bytes


def text_bytes(network: Any, dtype: str) -> int:
    """Bytes of the weights of a text encoder on the meta device, read in `dtype`."""
    return _part("text", network, dtype).bytes


def without_unneeded_weights(config: J) -> J:
    """The configuration without weights of codec and text that a plan does not need.

    They are unpinned repositories, and the network's own GGUF file, which holds no other part. They
    are removed only where a structure replaces them: other missing files stay errors.
    """
    nodes = {"codec": config.codec, "text": config.text}
    alone = config.model.get("weights")
    alone = alone if is_gguf_file(alone) else None
    return config.replace(**{name: _without_weights(node, alone) for name, node in nodes.items()})


def _without_weights(node: Node, alone: str | None) -> Node:
    if not any(node.get(key) for key in STRUCTURES):
        return node
    absent = [
        key
        for key, commit in WEIGHTS.items()
        if _is_unpinned(node.get(key), node.get(commit))
        or (alone is not None and node.get(key) == alone)
    ]
    return {**node, **dict.fromkeys(absent)}


def is_gguf_file(weights: Any) -> bool:
    """True for the path of an existing GGUF file."""
    from tinyflux_pl.weights import gguf_file

    file = Path(weights).expanduser() if isinstance(weights, str) else None
    return file is not None and file.is_file() and gguf_file.is_gguf(file)


def _is_unpinned(weights: Any, revision: Any) -> bool:
    """True for a repository without a commit; False for a path, so that a wrong one is an error."""
    if not isinstance(weights, str) or revision is not None or not REPOSITORY.fullmatch(weights):
        return False
    return not Path(weights).expanduser().exists()
