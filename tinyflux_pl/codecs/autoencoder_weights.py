"""Find and check an autoencoder's weights in a release's folder or a single file."""

from __future__ import annotations

from typing import Any

from torch import nn

from tinyflux_pl.codecs.autoencoder_layout import holds_autoencoder
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, HubError
from tinyflux_pl.core.files import read_object
from tinyflux_pl.weights import load_release, tensor_files
from tinyflux_pl.weights.dequantize import require_network, require_plain_config
from tinyflux_pl.weights.find_files import fetch, weights_in
from tinyflux_pl.weights.key_layout import KeyLayout
from tinyflux_pl.weights.known_releases import apposition, cure
from tinyflux_pl.weights.load_release import WeightSource
from tinyflux_pl.weights.weight_files import WeightFiles

STEMS = ("diffusion_pytorch_model",)


def locate(
    weights: str, revision: str | None, subfolder: str, variant: str | None = None
) -> WeightSource:
    """The autoencoder's weight files and config.json.

    They are taken from a release, from the release folder around a file, or from a file that
    contains them. Raises what weights.find_files.fetch and weights_in do, ConfigError for a file
    without an autoencoder, HubError for a folder that lacks weights or config.json,
    CheckpointMismatch for packed weights.
    """
    root = fetch(weights, revision, subfolder, STEMS, variant=variant)
    if root.is_file():
        tensor_files.require_weights(root)
        if holds_autoencoder(root):
            return WeightSource(WeightFiles((root,)), None, str(root))
        if not (root.parent / subfolder / "config.json").is_file():
            shapes = tensor_files.shapes(root)
            require_network(shapes, str(root))  # its message says more
            do = (
                "codec.weights=FOLDER or FILE.safetensors, or release.weights=FOLDER of the whole "
                "pipeline"
            )
            raise ConfigError(
                f"this file{apposition(shapes)} holds no autoencoder", where=str(root), cure=do
            )
        root = root.parent
    folder = root / subfolder
    do = "release.weights=FOLDER of the whole pipeline, or check codec.weights and codec.subfolder"
    if not (folder / "config.json").is_file():
        raise HubError("no config.json", where=str(folder), cure=do)
    config = read_object(folder / "config.json")
    require_plain_config(config, folder)
    config.pop("quantization_config", None)  # the weights tell more
    files = weights_in(folder, STEMS, variant, "codec.variant")
    if files is None:
        raise HubError("no safetensors weights", where=str(folder), cure=do)
    return WeightSource(files, config, str(folder))


def require_fit(
    skeleton: nn.Module,
    source: WeightSource,
    original: KeyLayout,
    structure: dict[str, Any],
) -> None:
    """As weights.load_release.require_fit; the error names a recognised release."""
    try:
        load_release.require_fit(skeleton, source, original=original, structure=structure)
    except CheckpointMismatch as error:
        shapes = source.shapes()
        if not apposition(shapes):
            raise
        what = f"this file{apposition(shapes)} holds another autoencoder; {error.what}"
        raise CheckpointMismatch(what, where=error.where, cure=cure(shapes)) from error
