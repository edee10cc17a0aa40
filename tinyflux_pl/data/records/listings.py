"""The listing of a folder, chosen by its files; made once for all splits."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.data.records.arrow_listing import PARQUET, ArrowRows, saved_files
from tinyflux_pl.data.records.dataset_files import scanned
from tinyflux_pl.data.records.folder_listing import FolderListing
from tinyflux_pl.data.records.listing import Listing, ListingOptions
from tinyflux_pl.data.records.webdataset import WebDataset

SHARD = ".tar"
_SHARED: ContextVar[dict[tuple, Listing] | None] = ContextVar("listings", default=None)


@contextmanager
def shared() -> Generator[None]:
    """Inside, each folder is listed only once."""
    before = _SHARED.set({} if _SHARED.get() is None else _SHARED.get())
    try:
        yield
    finally:
        _SHARED.reset(before)


def listing_of(root: Path, options: ListingOptions) -> Listing:
    """The listing of a folder; cached inside `shared()`."""
    listings = _SHARED.get()
    if listings is None:
        return _listing(root, options)
    if (root, options) not in listings:
        listings[root, options] = _listing(root, options)
    return listings[root, options]


def _listing(root: Path, options: ListingOptions) -> Listing:
    """The listing for the kind of files: pictures, shards, parquet files or a saved dataset."""
    scan = scanned(root)
    if scan.images:
        return FolderListing(root, options, scan)
    saved = saved_files(root)
    if saved is not None:
        return ArrowRows(root, options, saved)
    shards = [name for name in scan.other_files if name.lower().endswith(SHARD)]
    tables = [name for name in scan.other_files if name.lower().endswith(PARQUET)]
    if shards and tables:
        what = f"{len(shards)} shards (.tar) and {len(tables)} parquet files: two datasets"
        raise DataError(what, where=str(root), cure="move one kind to a folder of its own")
    if shards:
        return WebDataset(root, options, shards)
    if tables:
        return ArrowRows(root, options, tables)
    return FolderListing(root, options, scan)
