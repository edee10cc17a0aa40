"""Find a pretrained encoder and its tokenizer in a release or in a single file."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.core.errors import ConfigError, HubError
from tinyflux_pl.text import encoder_file
from tinyflux_pl.text.pretrained import STEMS
from tinyflux_pl.weights import hub, tensor_files
from tinyflux_pl.weights.dequantize import require_network
from tinyflux_pl.weights.find_files import fetch
from tinyflux_pl.weights.known_releases import apposition

COMPANION_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # configuration and vocabulary


def locate(
    weights: str,
    revision: str | None,
    subfolder: str,
    tokenizer_subfolder: str,
    part: str = "",
    tokenizer: str | None = None,
    tokenizer_revision: str | None = None,
    variant: str | None = None,
) -> tuple[Path, Path]:
    """Paths of an encoder and of its tokenizer in a local or fetched release; subfolders may be "".

    The encoder's is its folder, or the single file that holds it as `part` (encoder_file.PARTS); a
    file that does not leads to the folder around it. The tokenizer's folder may be in another
    release, `tokenizer`. Raises what weights.find_files.fetch does, ConfigError for a file without
    the encoder, HubError for a folder that is not there.
    """
    root = fetch(weights, revision, subfolder, STEMS, COMPANION_FILES, variant)
    path = _in_or_around(root, subfolder, part) if root.is_file() else _folder(root, subfolder)
    source = (weights, revision) if tokenizer is None else (tokenizer, tokenizer_revision)
    prefix = f"{tokenizer_subfolder}/" if tokenizer_subfolder else ""
    tokenizer_root = hub.resolve(*source, [prefix + name for name in COMPANION_FILES])
    if tokenizer is None and tokenizer_root.is_dir():
        return path, _folder(tokenizer_root, tokenizer_subfolder)
    tokenizer_root = tokenizer_root.parent if tokenizer_root.is_file() else tokenizer_root
    if not (tokenizer_root / tokenizer_subfolder).is_dir():
        cure = (
            f"text.tokenizer=FOLDER that holds {prefix}: a whole release's folder, or a folder of "
            "tokenizers alone"
        )
        raise HubError(
            f"no tokenizer {tokenizer_subfolder!r} for {root.name}",
            where=str(tokenizer_root),
            cure=cure,
        )
    return path, tokenizer_root / tokenizer_subfolder


def _in_or_around(file: Path, subfolder: str, part: str) -> Path:
    """The file itself, where it holds the encoder.

    Else the encoder's folder in the release around the file.
    """
    tensor_files.require_weights(file)
    if encoder_file.prefix_of(file, part) is not None:
        return file
    if not subfolder or not (file.parent / subfolder / "config.json").is_file():
        shapes = tensor_files.shapes(file)
        require_network(shapes, str(file))  # which would tell more
        what = f"this file{apposition(shapes)} holds no {part or 'text encoder'}"
        cure = (
            "release.weights=FOLDER of the whole pipeline, or name the encoder's place: "
            "text.weights, text.t5, ..."
        )
        raise ConfigError(what, where=str(file), cure=cure)
    return file.parent / subfolder


def _folder(root: Path, subfolder: str) -> Path:
    if not (root / subfolder).is_dir():
        cure = (
            "release.weights=FOLDER of the whole pipeline, or check text.weights (text.t5, "
            "text.clip) and subfolders"
        )
        raise HubError(f"no folder {subfolder!r}", where=str(root), cure=cure)
    return root / subfolder
