"""Which files of a folder hold a network: whole or in shards, plain or in a variant (fp16, bf16, ...)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyflux_pl.core import files, hub
from tinyflux_pl.core.errors import CorruptCheckpoint, HubError, UntrustedFile

PLAIN = (".safetensors", "-*.safetensors", ".safetensors.index.json")
VARIANTS = (".*.safetensors", ".safetensors.index.*.json")


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors of one network, in order, and the variant that they are (None: the plain weights)."""

    files: tuple[Path, ...]
    variant: str | None = None


def fetch(
    weights: str, revision: str | None, subfolder: str, stems: Sequence[str], beside: Sequence[str] = ("config.json",)
) -> Path:
    """The local file or folder behind a name; of a repository come the network in `subfolder` and what is `beside` it.

    Variants are fetched where there are no plain weights. Raises what hub.resolve does, and HubError for the
    root of a cached repository, which holds its revisions.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    plain = [f"{stem}{end}" for stem in stems for end in PLAIN]
    root = hub.resolve(weights, revision, [prefix + name for name in (*beside, *plain)])
    if revision and not root.is_file() and weights_in(root / subfolder, stems) is None:
        other = [f"{stem}{end}" for stem in stems for end in VARIANTS]
        root = hub.resolve(weights, revision, [prefix + name for name in (*beside, *plain, *other)])
    snapshots = sorted((root / "snapshots").glob("*")) if (root / "blobs").is_dir() else []
    if snapshots:
        cure = f"name one: {', '.join(str(folder) for folder in snapshots[:3])}"
        raise HubError("the hub's cache of a repository, which may hold several revisions", where=str(root), cure=cure)
    return root


def weights_in(folder: Path, stems: Sequence[str]) -> WeightFiles | None:
    """The weights in a folder under one of the names `stems`; None where there are none.

    The plain weights win over variants, a single variant is read where it is alone. Raises CorruptCheckpoint for
    a bad index or a missing shard, UntrustedFile for an index that leads elsewhere, HubError where there are
    several variants and nothing else.
    """
    torn: CorruptCheckpoint | None = None
    for variant in (None, *_variants(folder, stems)):
        for stem in stems:
            try:
                found = _named(folder, stem, variant)
            except CorruptCheckpoint as error:  # perhaps another form is whole
                torn = torn or error
                continue
            if found:
                return WeightFiles(found, variant)
    if torn:
        raise torn
    return None


def _variants(folder: Path, stems: Sequence[str]) -> list[str]:
    """The only variant of a folder, or none; HubError where plain weights are not there and variants are several."""
    ends = r"\.(?P<whole>\w+)\.safetensors|\.safetensors\.index\.(?P<index>\w+)\.json"
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, stems))})(?:{ends})")
    names = [pattern.fullmatch(file.name) for file in folder.glob("*") if file.is_file()]
    found = sorted({match["whole"] or match["index"] for match in names if match})
    if len(found) > 1 and not any(_is_there(folder, stem) for stem in stems):
        cure = "name the file, or remove those that are not meant"
        raise HubError(f"only variants of the weights: {', '.join(found[:10])}", where=str(folder), cure=cure)
    return found[:1]


def _is_there(folder: Path, stem: str) -> bool:
    return (folder / f"{stem}.safetensors").is_file() or (folder / f"{stem}.safetensors.index.json").is_file()


def _named(folder: Path, stem: str, variant: str | None) -> tuple[Path, ...]:
    """The files of one stem in one form: those of its index, else the whole file; () for none."""
    between = f".{variant}" if variant else ""
    index, whole = folder / f"{stem}.safetensors.index{between}.json", folder / f"{stem}{between}.safetensors"
    if index.is_file():
        return tuple(_shards(index))
    return (whole,) if whole.is_file() else ()


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in files.read_json(index)["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        what = "not an index of shards, a JSON object with a weight_map"
        raise CorruptCheckpoint(what, where=str(index), cure="fetch it again") from error
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            what = f"{index.name} names {name[:200]!r} as weights"
            raise UntrustedFile(what, where=str(index.parent), cure="only safetensors beside it are read")
    shards = [index.parent / name for name in names]
    for shard in shards:
        if not shard.is_file():
            raise CorruptCheckpoint(f"{shard.name} is missing", where=str(index.parent), cure="fetch it again")
    return shards
