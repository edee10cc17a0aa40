"""The manifest of a store: its name, its number of samples, and the records it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.cache.sealed_json import MANIFEST_FILE, read_sealed, require_fields
from tinyflux_pl.cache.staleness import plain, rebuild_hint, repair_hint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, DataError
from tinyflux_pl.core.interpreter import extraction

SCHEMA = 2
SEGMENTED_SCHEMA = 3  # of a store whose rows differ in shape; earlier versions refuse it
FIELDS = {"name": str, "total": int, "shard_size": int, "records": dict, "keys": str}
MAX_SAMPLES = 2**32  # of one store: a manifest that claims more is damaged or forged
MAX_SHARDS = 10**6


@dataclass(frozen=True)
class Manifest:
    """Name, number of samples, shard size, records and segments of a store.

    `keys`: the sha256 of `keys.bin`, "" for a store without keys. `segments`: the lengths of the
    runs of rows that have one shape; empty where all have.
    """

    name: str
    total: int
    shard_size: int
    records: dict[str, Any]
    keys: str
    segments: Sequence[int] = ()

    def write(self, root: Path) -> None:
        """Write it to the store at `root`, sealed."""
        content = {"schema": SCHEMA, **asdict(self), "records": plain(self.records)}
        if self.segments:
            content |= {"schema": SEGMENTED_SCHEMA, "segments": list(self.segments)}
        else:
            del content["segments"]
        files.write_sealed(root / MANIFEST_FILE, content)

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Read it from the store at `root`.

        DataError if there is none, CorruptStore if it is damaged.
        """
        file = root / MANIFEST_FILE
        if not file.exists():
            cure = f"make one: {extraction()}"
            raise DataError("there is no cache here", where=str(root), cure=cure)
        content = read_sealed(file, root, {"schema": int})
        segmented = content["schema"] == SEGMENTED_SCHEMA
        if content["schema"] != SCHEMA and not segmented:
            what = f"schema {content['schema']}; this version reads {SCHEMA}"
            raise CorruptStore(what, where=str(root), cure=rebuild_hint())
        fields = {**FIELDS, "segments": list} if segmented else FIELDS
        require_fields(content, fields, file, root)
        manifest = cls(**{name: content[name] for name in fields})
        manifest._require_plausible_size(file, root)
        return manifest

    def _require_plausible_size(self, file: Path, root: Path) -> None:
        if min(self.total, self.shard_size) < 1:
            what = "manifest.json holds no number of samples"
            raise CorruptStore(what, where=str(file), cure=repair_hint(root))
        lengths = [length for length in self.segments if type(length) is int and length > 0]
        if self.segments and (sum(lengths) != self.total or len(lengths) < len(self.segments)):
            what = "manifest.json holds no lengths of segments that fill the store"
            raise CorruptStore(what, where=str(file), cure=repair_hint(root))
        shards = sum(-(-length // self.shard_size) for length in lengths or [self.total])
        if self.total > MAX_SAMPLES or shards > MAX_SHARDS:
            what = f"manifest.json claims {self.total:,} samples in {shards:,} shards"
            raise CorruptStore(what, where=str(file), cure=repair_hint(root))
