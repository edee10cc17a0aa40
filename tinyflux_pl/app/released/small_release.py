"""A family's release in small, with random weights, in the folder layout of diffusers.

For trials of what will run with a release's own folder (`train.py simulate=true`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tinyflux_pl.app.released import photographs, release_settings
from tinyflux_pl.app.released.release_settings import SCHEDULER
from tinyflux_pl.app.released.simulation import small_parts
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Node, Train
from tinyflux_pl.core import files, fingerprint, interruption
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.release_writer import ReleaseWriter

FOLDER = "simulated"  # below paths.cache
WEIGHT_KEYS = ("weights", "t5", "clip")  # keys of a node that name the release's folder
OF_WEIGHTS = {*WEIGHT_KEYS, "structure", "dtype"}  # which the folder says
VERSION = 1


def with_small_release(config: Train) -> Train:
    """The configuration of simulate=true with its small release and photographs on disk.

    A folder of pictures that is not named becomes one of photographs. ConfigError for a model
    without a release, or with weights of its own.
    """
    if not config.simulate:
        return config
    _require_release(config)
    folder = Path(config.paths.cache) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=lambda _: interruption.poll()):  # of other ranks and runs
        release = str(_cached_release(config, folder))
        sources = _with_photographs(config, folder)
    nodes = {
        name: _with_release_paths(getattr(config, name), release)
        for name in ("model", "codec", "text")
    }
    nodes["text"] |= _small_layer_keys(config.text)
    assert config.release is not None
    return config.replace(
        **nodes,
        release=config.release.replace(weights=release),
        data=config.data.replace(sources=sources),
    )


def _with_release_paths(node: Node, release: str) -> Node:
    """The node with the release's folder for every path that it leaves open."""
    return {**node, **{key: release for key in WEIGHT_KEYS if key in node and node[key] is None}}


def _small_layer_keys(node: Node) -> dict[str, Any]:
    """The keys of the text encoder's node that differ for its small counterpart."""
    text = build(node, "text")
    if not isinstance(text, ReleaseWriter):  # it has no weights
        return {}
    small = text.simulated(0).config()
    keys = (node.keys() & small.keys()) - OF_WEIGHTS
    return {key: small[key] for key in keys if small[key] != node[key]}


def _with_photographs(config: Train, folder: Path) -> dict[str, Node]:
    """The sources with photographs for every folder of pictures that is not named."""
    sources: dict[str, Node] = {name: node.plain for name, node in config.data.sources.items()}
    for name, source in config.data.sources.items():
        for split, node in source.splits.items():
            if "root" in node and node["root"] is None and "count" not in node:
                root = photographs.write_folder(folder, "prompt" not in node)
                sources[name] = {**sources[name], split: {**node, "root": str(root)}}
    return sources


def _require_release(config: Train) -> None:
    if config.release is None or "structure" not in config.model:
        what = "only a published family is simulated"
        raise ConfigError(what, where="simulate", cure="model=flux1_dev, sdxl, sd35_medium ...")
    if config.model.get("weights") or config.init:
        what, where = "a simulation writes the weights that it starts from", "simulate"
        raise ConfigError(what, where=where, cure="leave init= and model.weights= out")
    if config.preflight == "plan":
        what = "a simulation is too small to plan"
        raise ConfigError(what, where="simulate", cure="leave simulate=true or preflight=plan out")


def _cached_release(config: Train, parent: Path) -> Path:
    """The folder of the release, written once for each choice of structures and seed."""
    nodes = {name: getattr(config, name) for name in ("model", "codec", "text")}
    key = fingerprint.hash_json({"version": VERSION, "seed": config.seed, **nodes})[:16]
    folder = parent / key
    if not folder.is_dir():
        staging = files.staging_path(folder)
        shutil.rmtree(staging, ignore_errors=True)
        write(config, staging)
        staging.rename(folder)
    return folder


def write(config: Train, folder: Path) -> None:
    """Write network, autoencoder, encoders, tokenizers and scheduler settings."""
    from tinyflux_pl.denoisers.released_denoiser import DIFFUSERS

    denoiser, codec, text = small_parts(release_settings.with_release_settings(config))
    denoiser.write_as(DIFFUSERS, folder)
    for part in (codec, text):
        if isinstance(part, ReleaseWriter):  # others have no weights
            part.write_release(folder)
    assert config.release is not None
    (folder / SCHEDULER).parent.mkdir()
    files.write_json(folder / SCHEDULER, dict(config.release.scheduler))
