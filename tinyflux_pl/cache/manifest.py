"""The manifest of a store: its name, its number of samples, and the records it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.cache.sealed_json import MANIFEST_FILE, read_sealed, require_fields
from tinyflux_pl.cache.staleness import plain, rebuild_hint, repair_hint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, DataError
from tinyflux_pl.core.interpreter import extraction

SCHEMA = 2
FIELDS = {"name": str, "total": int, "shard_size": int, "records": dict, "keys": str}
MAX_SAMPLES = 2**32  # of one store: a manifest that claims more is damaged or forged
MAX_SHARDS = 10**6


@dataclass(frozen=True)
class Manifest:
    """`records`: the fingerprint of the records.

    `keys`: the sha256 of `keys.bin`, "" for a store without keys.
    """

    name: str
    total: int
    shard_size: int
    records: dict[str, Any]
    keys: str

    def write(self, root: Path) -> None:
        """Write it to the store at `root`, sealed."""
        content = {"schema": SCHEMA, **asdict(self), "records": plain(self.records)}
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
        if content["schema"] != SCHEMA:
            what = f"schema {content['schema']}; this version reads {SCHEMA}"
            raise CorruptStore(what, where=str(root), cure=rebuild_hint())
        require_fields(content, FIELDS, file, root)
        manifest = cls(**{name: content[name] for name in FIELDS})
        manifest._require_plausible_size(file, root)
        return manifest

    def _require_plausible_size(self, file: Path, root: Path) -> None:
        if min(self.total, self.shard_size) < 1:
            what = "manifest.json holds no number of samples"
            raise CorruptStore(what, where=str(file), cure=repair_hint(root))
        shards = -(-self.total // self.shard_size)
        if self.total > MAX_SAMPLES or shards > MAX_SHARDS:
            what = f"manifest.json claims {self.total:,} samples in {shards:,} shards"
            raise CorruptStore(what, where=str(file), cure=repair_hint(root))
