"""One verified store, written as the files of the original trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.app.reporting import tables
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.data.original_cache import export

MAX_NAMED = 5  # stores that an error names


class StoreExport:
    """Export a verified store to a new folder; refuse what the format cannot express.

    ConfigError unless exactly one of `stores` is there; DataError for a folder that exists, and for
    a store that the original's files cannot express.
    """

    def __init__(self, stores: Sequence[Path], where: str, target: str) -> None:
        if len(stores) != 1:
            named = ", ".join(map(str, stores[:MAX_NAMED])) or "no cache"
            what = f"{len(stores):,} caches lie below {where} ({named}), and one can be exported"
            raise ConfigError(what, where="doctor", cure="doctor=CACHE/train names a single one")
        self.store = CacheStore.open(stores[0])
        self.folder = Path(target).expanduser()
        if self.folder.exists():
            cure = "name a folder that does not exist yet: export_pt=FOLDER"
            raise DataError("the path exists already", where=str(self.folder), cure=cure)
        export.require_expressible(self.store)

    def write(self) -> None:
        """Write the files, and print which groups are written and which are left out."""
        export.write_cache(self.store, self.folder)
        files = sorted(self.folder.iterdir())
        size = sum(file.stat().st_size for file in files) / 2**20
        names = ", ".join(file.name for file in files)
        rows = [
            ("files", f"{names} in {self.folder}"),
            ("samples", f"{len(self.store):,}, {size:,.1f} MiB"),
        ]
        names = ", ".join(export.left_out(self.store))
        rows.append(("left out", f"{names}: the original's files cannot hold them"))
        tables.show("exported for the original trainer", rows)
