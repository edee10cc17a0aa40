"""Records of a cache of the original trainer: latents, text and teachers, and no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError
from tinyflux_pl.core.record import NO_PICTURE, Record
from tinyflux_pl.data.original_cache.meta_file import clocks_of
from tinyflux_pl.data.original_cache.part_table import PartTable
from tinyflux_pl.data.original_cache.parts import (
    ENCODINGS,
    MAKE_AGAIN,
    PARTS,
    files_of,
    unused_files,
)
from tinyflux_pl.data.records.content_split import held_out
from tinyflux_pl.data.records.file_index import FileIndex
from tinyflux_pl.data.records.finding import findings_of
from tinyflux_pl.data.records.precomputed_group import PrecomputedGroup
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")
CLOCK = "literal"  # of the original, which names none: experts.literal
VERSION = 1
INDEX_SUFFIX = ".rows.json"
MAX_OPENED = 4  # caches that stay mapped: the two splits of a source are of one


class OriginalCache(RecordSource):
    """The rows of encodings.pt, lune.pt and sol.pt under `root`, or of their shards.

    A row belongs to `validation` where the hash of its content, as a number in [0, 1), is below
    `validation_fraction`. Prompts may be missing (build_incremental loses them when it merges its
    shards) with `allow_missing_captions`. The rows' hashes lie beside the file `decoded`: a later
    start reads new and changed files alone. Raises ConfigError, DataError, UntrustedFile.
    """

    name = "original_cache"
    reads_files = True
    has_pictures = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        validation_fraction: float = 0.05,
        allow_missing_captions: bool = False,
        decoded: str | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        self.allow_missing_captions = allow_missing_captions
        if split not in SPLITS or not 0 <= validation_fraction < 1:
            what = f"split={split}, validation_fraction={validation_fraction}"
            raise ConfigError(
                what, where="data", cure=f"split one of {', '.join(SPLITS)}, fraction in [0, 1)"
            )
        files = files_of(self.root)
        self._tables = _opened(
            tuple((name, tuple(paths)) for name, paths in files.items()),
            _stamps(files),
            self.root,
            None if decoded is None else Path(decoded).with_suffix(INDEX_SUFFIX),
        )
        self._encodings = self._tables[ENCODINGS.name]
        self._require_captions()
        self._rows = self._chosen(validation_fraction)
        self._clocks = clocks_of(self.root)
        cure = "take them out: a cache is encodings, lune, sol and meta"
        self.findings = findings_of("not used", unused_files(self.root, files), cure)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self._rows[index]
        identity = int(self._encodings.digests[row][:16], 16) >> 1
        caption, source = self._encodings.prompt(row), self._encodings.name(row)
        return Record(NO_PICTURE, caption, identity, source=source)

    @cached_property
    def precomputed(self) -> Mapping[str, PrecomputedGroup]:
        """The encodings, and the teachers that the cache holds."""
        groups = {}
        for name, table in self._tables.items():
            shapes = {PARTS[name].columns[key]: shape for key, shape in table.shapes.items()}
            clock = self._clocks.get(name, CLOCK) if table.times else ""
            groups[name] = PrecomputedGroup(shapes, table.times, clock)
        return groups

    def columns(self, group: str, rows: Sequence[int]) -> dict[str, Tensor]:
        """The columns of a part, of these records, in the cache's own dtype."""
        table, chosen = self._tables[group], [self._rows[row] for row in rows]
        columns = table.part.columns.items()
        return {column: table.gather(key, chosen) for key, column in columns}

    def columns_fingerprint(self, group: str) -> dict[str, Any]:
        """The content of a part, of these records."""
        digests = self._tables[group].digests
        content = fingerprints.hash_json([digests[row] for row in self._rows])
        return {"precomputed": self.name, "version": VERSION, "content": content}

    def fingerprint(self) -> dict[str, Any]:
        """The content of the encodings and its order: not the root, not times, not file names."""
        content = self.columns_fingerprint(ENCODINGS.name)["content"]
        return {
            "name": self.name,
            "version": VERSION,
            "content": content,
            "count": len(self),
            "split": self.split,
        }

    def sample_keys(self) -> list[list[Any]]:
        """The hash of each row's encodings."""
        return [[self.name, VERSION, self._encodings.digests[row]] for row in self._rows]

    def captions(self) -> list[tuple[str, str]]:
        """The file and row of each record, and its prompt."""
        return [(self._encodings.name(row), self._encodings.prompt(row)) for row in self._rows]

    def check(self) -> None:
        """Read everything once: DataError for a value that is not finite."""
        for table in self._tables.values():
            table.require_finite()

    def _require_captions(self) -> None:
        if self.allow_missing_captions:
            return
        files = self._encodings.files
        without = [f.path.name for f in files if f.prompts is None or not all(f.prompts)]
        if without:
            raise CaptionError(
                f"no prompts in {', '.join(without[:3])}: the embeddings are there, no texts",
                where=str(self.root),
                cure="name the folder of shards, which have them, or train without the texts: "
                "data.allow_missing_captions=true",
            )

    def _chosen(self, fraction: float) -> list[int]:
        """The rows of the split, in the order of the files."""
        rows = range(len(self._encodings))
        if self.split == "all":
            return [*rows]
        digests = self._encodings.digests
        validation = held_out(digests, fraction)
        chosen = [k for k in rows if (digests[k] in validation) == (self.split == "validation")]
        if not chosen:
            cure = "set data.validation_fraction above 0, of two different samples at least"
            what = f"no sample is left for the split {self.split!r}"
            raise DataError(what, where=str(self.root), cure=cure)
        return chosen


def _stamps(files: Mapping[str, Sequence[Path]]) -> tuple[tuple[int, ...], ...]:
    """Identity, size and times of every file: others are opened again."""
    statuses = (path.stat() for paths in files.values() for path in paths)
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in statuses)


@lru_cache(maxsize=MAX_OPENED)
def _opened(
    files: tuple[tuple[str, tuple[Path, ...]], ...],
    _: tuple[tuple[int, ...], ...],
    root: Path,
    index_file: Path | None,
) -> dict[str, PartTable]:
    """Part -> its table; DataError where parts differ in their rows."""
    index = None if index_file is None else FileIndex(index_file, root, ["rows", VERSION])
    tables = {name: PartTable(PARTS[name], paths, index) for name, paths in files}
    expected = tables[ENCODINGS.name].lengths
    for name, table in tables.items():
        if table.lengths != expected:
            what = f"{name} has {len(table):,} rows, the encodings {len(tables[ENCODINGS.name]):,}"
            where = str(table.files[0].path.parent)
            raise DataError(f"{what}, file by file", where=where, cure=MAKE_AGAIN)
    return tables
