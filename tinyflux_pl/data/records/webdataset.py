"""Pictures in webdataset shards: .tar files whose members of one key are one sample."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tinyflux_pl.core.errors import CaptionError, DataError, ImageError
from tinyflux_pl.data.images.decode import MAX_BYTES, content_of
from tinyflux_pl.data.images.formats import suffixes
from tinyflux_pl.data.records.caption_tables import CAPTION_KEYS, captions_of
from tinyflux_pl.data.records.caption_text import decoded
from tinyflux_pl.data.records.dataset_files import (
    MASK_SUFFIX,
    MAX_CAPTION_BYTES,
    inside,
    is_file,
)
from tinyflux_pl.data.records.finding import findings_of
from tinyflux_pl.data.records.listing import Entry, Listing, ListingOptions
from tinyflux_pl.data.records.table_rows import parsed

TEXTS = (".txt", ".caption")
JSON = ".json"
NOT_USED_CURE = "take them out of the shard: a sample is KEY.jpg, KEY.txt or KEY.json, KEY.mask.png"
KEYS_CURE = f"nothing: of KEY.json what is read is {' or '.join(CAPTION_KEYS)}"


@dataclass(frozen=True)
class Member:
    """Offset and size of a member in its shard."""

    shard: str
    offset: int
    size: int


@dataclass
class Sample:
    """The members of one key, by their names."""

    pictures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    mask: str = ""


class WebDataset(Listing):
    """The samples of the .tar files of a folder, in the order of the shards and of their members.

    Members are named SHARD/KEY.suffix. A sample is a picture with KEY.txt, KEY.caption or KEY.json
    (text, caption or prompt: a text or a list), and KEY.mask.png. Compressed shards are not read.
    """

    table = "KEY.txt or KEY.json of each shard"

    def __init__(self, root: Path, options: ListingOptions, shards: list[str]) -> None:
        self._shards = shards
        self._members: dict[str, Member] = {}
        self._keys: dict[str, tuple[str, ...]] = {}  # of each JSON member without a caption
        if options.caption_file is not None:
            cure = "leave data.caption_file out: captions lie in the shards"
            raise CaptionError("shards have no such table", where=options.caption_file, cure=cure)
        super().__init__(root, options)

    def content(self, path: str) -> bytes:
        return content_of(self._bytes(path, MAX_BYTES), str(self.root / path))

    def _list(self) -> list[Entry]:
        samples: dict[str, Sample] = {}
        unused: list[str] = []
        for shard in self._shards:
            for name, suffix, key in self._members_of(shard):
                if suffix not in (MASK_SUFFIX, *suffixes(), *TEXTS, JSON):
                    unused.append(name)
                    continue
                sample = samples.setdefault(key, Sample())
                if suffix == MASK_SUFFIX and sample.mask:
                    unused.append(name)
                elif suffix == MASK_SUFFIX:
                    sample.mask = name
                elif suffix in suffixes():
                    sample.pictures.append(name)
                else:
                    sample.texts.append(name)
        twins = [" = ".join(s.pictures) for s in samples.values() if len(s.pictures) > 1]
        alone = [key for key, sample in samples.items() if not sample.pictures]
        self.findings = [
            *findings_of("not used", unused, NOT_USED_CURE),
            *findings_of("caption alone", alone, "give each key a picture, or take them out"),
            *findings_of("one stem", twins, "give each picture a key: they share a caption"),
        ]
        pairs = [(name, s) for s in samples.values() for name in s.pictures]

        def entry(item: tuple[str, Sample]) -> Entry:
            picture, sample = item
            sha256, size = self._digest(picture)
            mask = self._digest(sample.mask)[0] if sample.mask else ""
            return Entry(picture, sha256, self._written(sample), sample.mask, mask, size)

        entries = self._collect(pairs, entry)
        bare = {entry.path for entry in entries if not entry.captions}
        texts = (name for picture, sample in pairs if picture in bare for name in sample.texts)
        keys = dict.fromkeys(key for name in texts for key in self._keys.get(name, ()))
        self.findings += findings_of("column not read", keys, KEYS_CURE)
        return entries

    def _members_of(self, shard: str) -> Iterator[tuple[str, str, str]]:
        """(name, lower suffix from the first dot on, key) of each file of a shard."""
        path = inside(self.root, shard)
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    name = f"{shard}/{member.name}"
                    folder, _, base = name.rpartition("/")
                    stem, dot, rest = base.partition(".")
                    if not member.isreg() or member.issparse() or name in self._members:
                        yield name, "", name
                        continue
                    self._members[name] = Member(shard, member.offset_data, member.size)
                    yield name, f"{dot}{rest}".lower(), f"{folder}/{stem}"
        except (tarfile.TarError, OSError, ValueError) as error:
            cure = "replace the shard; a compressed one is read once unpacked: gunzip"
            raise DataError(
                f"not a readable tar file: {error}", where=str(path), cure=cure
            ) from error

    def _written(self, sample: Sample) -> tuple[str, ...]:
        """The captions of a sample, whose members must agree; CaptionError."""
        read = {name: self._captions(name) for name in sample.texts}
        distinct = [texts for texts in dict.fromkeys(read.values()) if texts]
        if len(distinct) > 1:
            what = f"{' and '.join(read)} are captions of one picture, and differ"
            cure = "keep one of them; several captions are a list in KEY.json"
            raise CaptionError(what, where=str(self.root), cure=cure)
        return distinct[0] if distinct else ()

    def _captions(self, name: str) -> tuple[str, ...]:
        where = str(self.root / name)
        text = decoded(self._bytes(name, MAX_CAPTION_BYTES), where)
        if os.path.splitext(name)[1].lower() != JSON:
            return self.options.captions.written(text)
        row = parsed(text, where)
        if not isinstance(row, dict):
            cure = f"write an object with {' or '.join(CAPTION_KEYS)}"
            raise CaptionError("not a JSON object", where=where, cure=cure)
        key = next((key for key in CAPTION_KEYS if key in row), "")
        if not key:
            self._keys[name] = tuple(map(str, row))
        texts = captions_of(row.get(key), name, where)
        return tuple(text.strip() for text in texts if text.strip())

    def _bytes(self, name: str, most: int) -> bytes:
        member = self._members[name]
        where, cure = str(self.root / name), "replace or remove it"
        if member.size > most:
            what = f"{member.size:,} bytes, more than {most:,}"
            raise ImageError(what, where=where, cure=cure)
        path = inside(self.root, member.shard)
        if not is_file(path):
            raise ImageError("the shard is not there any more", where=where, cure="start again")
        with open(path, "rb") as handle:
            handle.seek(member.offset)
            content = handle.read(member.size)
        if len(content) < member.size:
            raise ImageError("the shard ends within it", where=where, cure=cure)
        return content
