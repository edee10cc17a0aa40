"""Find a network's weight files in a folder: one file or shards, plain or a variant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    ConfigError,
    CorruptCheckpoint,
    HubError,
    UntrustedFile,
)
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.weight_files import WeightFiles

PLAIN = (".safetensors", "-*.safetensors", ".safetensors.index.json")
VARIANTS = (".*.safetensors", ".safetensors.index.*.json")
NAMED = (
    ".{0}.safetensors",
    ".{0}-*.safetensors",
    "-*.{0}.safetensors",
    ".safetensors.index.{0}.json",
)


def fetch(
    weights: str,
    revision: str | None,
    subfolder: str,
    stems: Sequence[str],
    other_files: Sequence[str] = ("config.json",),
    variant: str | None = None,
) -> Path:
    """Resolve a name to a local file or folder.

    Of a repository, download the network in `subfolder` and `other_files` beside it.

    A `variant` (fp16, bf16, non_ema, ...) is fetched where it is asked for; all of them where there
    are no plain weights and none is asked for. Raises what hub.resolve does, ConfigError for a
    variant that is no word, and HubError for the root of a cached repository, which holds its
    revisions.
    """
    if variant is not None and not re.fullmatch(r"\w+", variant):
        raise ConfigError(
            f"no variant {variant!r}", where=weights, cure="a word such as fp16, bf16 or non_ema"
        )
    prefix = f"{subfolder}/" if subfolder else ""
    ends = PLAIN if variant is None else [end.format(variant) for end in NAMED]
    plain = [f"{stem}{end}" for stem in stems for end in ends]
    root = hub.resolve(weights, revision, [prefix + name for name in (*other_files, *plain)])
    if (
        revision
        and variant is None
        and not root.is_file()
        and weights_in(root / subfolder, stems) is None
    ):
        other = [f"{stem}{end}" for stem in stems for end in VARIANTS]
        root = hub.resolve(
            weights, revision, [prefix + name for name in (*other_files, *plain, *other)]
        )
    snapshots = sorted((root / "snapshots").glob("*")) if (root / "blobs").is_dir() else []
    if snapshots:
        cure = f"name one: {', '.join(str(folder) for folder in snapshots[:3])}"
        raise HubError(
            "the hub's cache of a repository, which may hold several revisions",
            where=str(root),
            cure=cure,
        )
    return root


def weights_in(
    folder: Path, stems: Sequence[str], variant: str | None = None, key: str = "the configuration"
) -> WeightFiles | None:
    """The weights in a folder under one of the names `stems`; None where there are none.

    The `variant` that is asked for by the configuration's `key`; else the plain weights win over
    variants, and a single variant is read where it is alone. Raises CorruptCheckpoint for a bad
    index or a missing shard, CheckpointMismatch for a shard that the index does not name,
    UntrustedFile for an index that leads elsewhere, HubError where there are several variants and
    nothing else, or not the one that was asked for.
    """
    truncated: CorruptCheckpoint | None = None
    variants = _variants(folder, stems)
    if variant is None and len(variants) > 1 and not any(_is_there(folder, stem) for stem in stems):
        cure = f"choose one: {key}={variants[0]}"
        raise HubError(
            f"only variants of the weights: {', '.join(variants[:10])}",
            where=str(folder),
            cure=cure,
        )
    for tried in (None, *variants[:1]) if variant is None else (variant,):
        for stem in stems:
            try:
                weights = _named(folder, stem, tried)
            except CorruptCheckpoint as error:  # perhaps another form is whole
                truncated = truncated or error
                continue
            if weights:
                return weights
    if truncated:
        raise truncated
    if variant is not None:
        names = [
            name
            for name in ("plain", *variants)
            if name != "plain" or any(_is_there(folder, s) for s in stems)
        ]
        cure = f"{key}=null for the plain weights, or name one that is there"
        what = f"no weights of the variant {variant}; there are: {', '.join(names[:10]) or 'none'}"
        raise HubError(what, where=str(folder), cure=cure)
    return None


def _variants(folder: Path, stems: Sequence[str]) -> list[str]:
    """The variants of a folder's weights, in order."""
    ends = r"\.(?P<whole>\w+)\.safetensors|\.safetensors\.index\.(?P<index>\w+)\.json"
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, stems))})(?:{ends})")
    names = [pattern.fullmatch(file.name) for file in folder.glob("*") if file.is_file()]
    return sorted({match["whole"] or match["index"] for match in names if match})


def _is_there(folder: Path, stem: str) -> bool:
    return (folder / f"{stem}.safetensors").is_file() or (
        folder / f"{stem}.safetensors.index.json"
    ).is_file()


def _named(folder: Path, stem: str, variant: str | None) -> WeightFiles | None:
    """The files of one stem in one form: those of its index, else the whole file."""
    between = f".{variant}" if variant else ""
    index, single = (
        folder / f"{stem}.safetensors.index{between}.json",
        folder / f"{stem}{between}.safetensors",
    )
    if index.is_file():
        shard_of, total = _index(index)
        shards = tuple(folder / name for name in sorted(set(shard_of.values())))
        _require_shards(folder, shards, stem, variant)
        return WeightFiles(shards, variant, shard_of, total)
    return WeightFiles((single,), variant) if single.is_file() else None


def _index(index: Path) -> tuple[dict[str, str], int | None]:
    """The file of each key and the bytes of all tensors, as an index says them.

    It names safetensors beside it alone; None: it does not say the bytes.
    """
    try:
        content = files.read_json(index)
        shard_of = {str(key): str(name) for key, name in content["weight_map"].items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        what = "not an index of shards, a JSON object with a weight_map"
        raise CorruptCheckpoint(what, where=str(index), cure="fetch it again") from error
    for name in sorted(set(shard_of.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            what = f"{index.name} names {name[:200]!r} as weights"
            raise UntrustedFile(
                what, where=str(index.parent), cure="only safetensors of the same folder are read"
            )
    if not shard_of:
        raise CorruptCheckpoint(
            "an index that names no weights", where=str(index), cure="fetch it again"
        )
    metadata = content.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return shard_of, int(total) if type(total) in (int, float) and total > 0 else None


def _require_shards(folder: Path, shards: Sequence[Path], stem: str, variant: str | None) -> None:
    """Raise for a shard that is missing, and for one beside them that the index does not name."""
    for shard in shards:
        if not shard.is_file():
            raise CorruptCheckpoint(
                f"{shard.name} is missing", where=str(folder), cure="fetch it again"
            )
    between = rf"\.{variant}" if variant else ""
    pattern = rf"{re.escape(stem)}(?:{between}-\d+-of-\d+|-\d+-of-\d+{between})\.safetensors"
    for file in sorted(folder.glob(f"{stem}*.safetensors")):
        if re.fullmatch(pattern, file.name) and file not in shards:
            what = f"the index does not name {file.name}, a shard in the same folder"
            cure = (
                "fetch index and shards again, or remove the shard if it is left from another "
                "release"
            )
            raise CheckpointMismatch(what, where=str(folder), cure=cure)
