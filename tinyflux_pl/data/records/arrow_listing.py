"""Pictures in the rows of parquet files, or of a dataset that Hugging Face's library saved."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.data.images.decode import MAX_BYTES, content_of
from tinyflux_pl.data.records.caption_tables import CAPTION_KEYS, captions_of
from tinyflux_pl.data.records.dataset_files import inside, is_file
from tinyflux_pl.data.records.finding import findings_of
from tinyflux_pl.data.records.listing import Entry, Listing, ListingOptions

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture")
MASK_COLUMN = "mask"
PARQUET, ARROW = ".parquet", ".arrow"
ROW_GROUPS = 2  # of parquet that are kept: rows are mostly read in their order
EXTRA = 'pip install -c constraints.txt -e ".[tables]"'
CURE = f"a column of pictures ({', '.join(IMAGE_COLUMNS)}), and one of {' or '.join(CAPTION_KEYS)}"


class ArrowRows(Listing):
    """The rows of the .parquet or .arrow files of a folder, in order; names are FILE/ROW.

    A picture is bytes, or a struct with a field `bytes` as Hugging Face's Image feature stores it;
    a caption a text or a list of texts; `mask` a second picture. Needs pyarrow.
    """

    table = "the column of captions"

    def __init__(self, root: Path, options: ListingOptions, files: list[str]) -> None:
        self._files = files
        self._parts: dict[str, tuple[str, int, int]] = {}  # name -> file, part, row of the part
        self._columns: dict[str, tuple[str, str | None]] = {}  # file -> picture, caption
        self._part = lru_cache(ROW_GROUPS)(self._read_part)
        if options.caption_file is not None:
            cure = "leave data.caption_file out: captions are a column"
            raise CaptionError("no such table", where=options.caption_file, cure=cure)
        super().__init__(root, options)

    def content(self, path: str) -> bytes:
        name, is_mask = path.removesuffix(f"/{MASK_COLUMN}"), path.endswith(f"/{MASK_COLUMN}")
        file, part, row = self._parts[name]
        column = MASK_COLUMN if is_mask else self._columns[file][0]
        value = self._part(file, part)[column][row].as_py()
        where = str(self.root / path)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            what = "the row holds no bytes of a picture"
            cure = "save the dataset with its pictures embedded, not as paths"
            raise ImageError(what, where=where, cure=cure)
        if len(content) > MAX_BYTES:
            what = f"{len(content):,} bytes, more than {MAX_BYTES:,}"
            raise ImageError(what, where=where, cure="replace or remove it")
        return content_of(content, where)

    def _list(self) -> list[Entry]:
        require_pyarrow(str(self.root))
        rows: list[tuple[str, tuple[str, ...], bool]] = []
        unread: dict[str, None] = {}
        for file in self._files:
            rows += self._rows_of(file, unread)
        cure = f"nothing: what is read is {CURE}, and {MASK_COLUMN}"
        self.findings = findings_of("column not read", unread, cure)

        def entry(item: tuple[str, tuple[str, ...], bool]) -> Entry:
            name, captions, masked = item
            sha256, size = self._digest(name)
            mask = f"{name}/{MASK_COLUMN}" if masked else ""
            return Entry(name, sha256, captions, mask, self._digest(mask)[0] if mask else "", size)

        return self._collect(rows, entry)

    def _rows_of(
        self, file: str, unread: dict[str, None]
    ) -> Iterator[tuple[str, tuple[str, ...], bool]]:
        """(name, captions, has a mask) of each row of a file."""
        names = self._names(file)
        if twice := next((name for name in names if names.count(name) > 1), None):
            what, cure = f"two columns are called {twice}", "give each a name of its own"
            raise DataError(what, where=str(self.root / file), cure=cure)
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
        text = next((name for name in CAPTION_KEYS if name in names), None)
        if image is None:
            what = f"no column of pictures among {', '.join(names)}"
            raise DataError(what, where=str(self.root / file), cure=CURE)
        self._columns[file] = (image, text)
        unread |= dict.fromkeys(name for name in names if name not in (image, text, MASK_COLUMN))
        number = 0
        for part in range(self._num_parts(file)):
            table = self._part(file, part)
            captions = [None] * len(table) if text is None else table[text].to_pylist()
            masks = table[MASK_COLUMN].is_valid() if MASK_COLUMN in names else None
            for row, value in enumerate(captions):
                name = f"{file}/{number:07d}"
                where = str(self.root / name)
                texts = tuple(t.strip() for t in captions_of(value, name, where) if t.strip())
                self._parts[name] = (file, part, row)
                yield name, texts, masks is not None and masks[row].as_py()
                number += 1

    def _names(self, file: str) -> list[str]:
        return _opened(inside(self.root, file)).names

    def _num_parts(self, file: str) -> int:
        return _opened(inside(self.root, file)).parts

    def _read_part(self, file: str, part: int) -> Any:
        path = inside(self.root, file)
        with _explained(str(path)):
            return _opened(path).read(part)


class _Parquet:
    """A parquet file: a part is a row group."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        self._file = parquet.ParquetFile(path)
        self.names = self._file.schema_arrow.names
        self.parts = self._file.num_row_groups

    def read(self, part: int) -> Any:
        return self._file.read_row_group(part)


class _ArrowStream:
    """An IPC stream, memory-mapped: one part."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            self._table = stream.read_all()
        self.names = self._table.schema.names
        self.parts = 1

    def read(self, part: int) -> Any:
        return self._table


@lru_cache(16)
def _opened_at(path: str, modified: int) -> _Parquet | _ArrowStream:
    with _explained(path):
        return _Parquet(Path(path)) if path.lower().endswith(PARQUET) else _ArrowStream(Path(path))


@contextmanager
def _explained(path: str) -> Generator[None]:
    """Raise DataError for the errors of pyarrow for damaged files."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        kind = "parquet file" if path.lower().endswith(PARQUET) else "Arrow stream"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"not a {kind}: {reason}", where=path, cure="replace it") from error


def _opened(path: Path) -> _Parquet | _ArrowStream:
    if not is_file(path):
        cure = "fetch the dataset again, or save it again"
        raise DataError("the file is not there", where=str(path), cure=cure)
    return _opened_at(str(path), path.stat().st_mtime_ns)


def require_pyarrow(where: str) -> None:
    """Raise ConfigError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        what = "parquet and Arrow files are read by pyarrow, which is not installed"
        raise ConfigError(what, where=where, cure=EXTRA) from error


def saved_files(root: Path) -> list[str] | None:
    """The .arrow files that `save_to_disk` wrote to `root`, in order; None without such.

    DataError for a dictionary of datasets, whose splits are folders of their own.
    """
    if (root / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in root.iterdir() if (p / "state.json").is_file())
        cure = f"choose one: data.root={root}/{splits[0] if splits else 'train'}"
        raise DataError(
            f"a dictionary of datasets: {', '.join(splits)}", where=str(root), cure=cure
        )
    state = root / "state.json"
    if not state.is_file() or not (root / "dataset_info.json").is_file():
        return None
    try:
        described = json.loads(state.read_text())
        files = [str(entry["filename"]) for entry in described["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"state.json names no data files ({type(error).__name__})"
        raise DataError(what, where=str(state), cure="save the dataset again") from error
    if described.get("_indices_data_files"):  # of a selection or another order, by old versions
        cure = "save it with its rows: dataset.flatten_indices().save_to_disk(FOLDER)"
        raise DataError("a selection of the rows of its files", where=str(state), cure=cure)
    return files
