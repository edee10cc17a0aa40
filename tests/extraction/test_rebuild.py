"""A rebuild computes only affected rows and ends with the bytes of a new cache."""

import dataclasses

import pytest
import torch

from tests.extraction.test_encode import Extractor, encode, extract, make
from tinyflux_pl.cache.rebuild import ReusableRows, carry_over
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.fingerprint import hash_json, sample_id
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.text.hashed_words import HashedWords


class Chosen(RecordSource):
    """Some of the shapes in some order, with some captions changed."""

    name = "chosen"

    def __init__(self, indices, captions=None):
        self.shapes, self.indices, self.captions = Shapes(count=40), list(indices), captions or {}

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        record = self.shapes[self.indices[i]]
        caption = self.captions.get(self.indices[i], record.caption)
        return dataclasses.replace(
            record, caption=caption, sample_id=sample_id(record.image.tobytes(), caption)
        )

    def fingerprint(self):
        return {"content": hash_json([self.indices, sorted(self.captions.items())])}


def parts(records):
    return records, PixelFolding(2), HashedWords(16, 12)


def built(root, records):
    """From nothing, with one expert."""
    store = make(root, parts(records))
    encode(store, parts(records))
    extract(store, parts(records), Extractor())
    return store


def rebuilt(root, records, old):
    """With what can be kept of an old store; how many entries each group made."""
    store = make(root, parts(records))
    counts = [encode(store, parts(records), reusable=ReusableRows(old, store, "encodings"))]
    store.begin_group("lune", Extractor().fingerprint())
    return [
        *counts,
        extract(store, parts(records), Extractor(), reusable=ReusableRows(old, store, "lune")),
    ]


def content(root):
    return {
        p.relative_to(root): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


CHANGES = {
    "nothing": (Chosen(range(20)), 0),
    "one caption": (Chosen(range(20), {7: "a small blue cross, left"}), 1),
    "one added in front": (Chosen([30, *range(20)]), 1),
    "ten added": (Chosen([*range(20), *range(25, 35)]), 10),
    "three removed": (Chosen([i for i in range(20) if i not in (0, 9, 19)]), 0),
    "reversed": (Chosen(reversed(range(20))), 0),
    "one twice": (Chosen([*range(20), 4]), 0),
    "others altogether": (Chosen(range(20, 40)), 20),
    "reordered, one removed, one added, one edited": (
        Chosen([*range(19, 0, -1), 33], {5: "a red circle"}),
        2,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_rebuild_computes_exactly_the_affected_rows(tmp_path, change):
    records, affected = CHANGES[change]
    old = built(tmp_path / "old", Chosen(range(20)))
    assert rebuilt(tmp_path / "new", records, CacheStore.open(old.root)) == [affected, affected]
    built(tmp_path / "from nothing", records)
    assert content(tmp_path / "new") == content(tmp_path / "from nothing")


def test_a_rebuild_copies_no_damaged_shard(tmp_path):
    old = built(tmp_path / "old", Chosen(range(20)))
    shard = old.root / "encodings" / "shard_00001.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    old, records = CacheStore.open(old.root), Chosen(range(20))
    new = make(tmp_path / "new", parts(records))
    kept = ReusableRows(old, new, "encodings")
    assert encode(new, parts(records), reusable=kept) == 8 and "shard_00001" in kept.faults[0]
    built(tmp_path / "whole", records)
    assert (
        content(tmp_path / "new")[shard.relative_to(old.root)]
        == content(tmp_path / "whole")[shard.relative_to(old.root)]
    )
    (old.root / "lune" / "group.json").write_bytes(b"{}")
    assert ReusableRows(CacheStore.open(old.root), new, "lune").missing_rows(range(20)) == list(
        range(20)
    )


def test_a_group_with_another_fingerprint_reuses_no_row(tmp_path):
    old, records = built(tmp_path / "old", Chosen(range(20))), Chosen(range(20))
    new = make(tmp_path / "new", parts(records))
    assert encode(new, parts(records), reusable=ReusableRows(old, new, "encodings")) == 0
    new.begin_group("lune", {"teacher": "another"})
    assert ReusableRows(old, new, "lune").missing_rows(range(20)) == list(range(20))


def test_rows_of_an_unfinished_old_store_are_reused(tmp_path):
    old, records = built(tmp_path / "old", Chosen(range(20))), Chosen(range(20))
    (old.root / "encodings" / "shard_00002.json").unlink()
    new = make(tmp_path / "new", parts(records))
    kept = ReusableRows(CacheStore.open(old.root), new, "encodings")
    assert kept.missing_rows(range(20)) == [16, 17, 18, 19] and not kept.faults


def test_a_group_without_loaded_teacher_is_copied_where_possible(tmp_path):
    old = built(tmp_path / "old", Chosen(range(20)))
    records = Chosen(range(20), {17: "a red circle"})
    new = make(tmp_path / "new", parts(records))
    encode(new, parts(records), reusable=ReusableRows(old, new, "encodings"))
    new.begin_group("lune", old.groups()["lune"])
    carry_over(ReusableRows(old, new, "lune"), new)
    assert new.pending("lune") == [2]
    assert torch.equal(
        new.gather("lune.features", range(16)), old.gather("lune.features", range(16))
    )


def test_a_stopped_rebuild_resumes(tmp_path, monkeypatch):
    old, records = (
        built(tmp_path / "old", Chosen(range(20))),
        Chosen([*range(10, 20), *range(20, 30)]),
    )
    real, written = CacheStore.write_shard, []

    def dies_on_the_second(self, *arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(real(self, *arguments))

    monkeypatch.setattr(CacheStore, "write_shard", dies_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        rebuilt(tmp_path / "new", records, old)
    monkeypatch.undo()
    assert rebuilt(tmp_path / "new", records, old) == [10, 10]  # the first shard was all kept
    built(tmp_path / "from nothing", records)
    assert content(tmp_path / "new") == content(tmp_path / "from nothing")


@pytest.mark.parametrize("shared", [True, False])
def test_every_batch_has_the_same_shape_however_few_rows_are_computed(
    tmp_path, monkeypatch, shared
):
    """Kernels round by batch shape: otherwise single rows would differ in the last bits."""
    records = Chosen(range(20), {7: "a small blue cross, left", 19: "a red circle"})
    old, shapes, real = built(tmp_path / "old", Chosen(range(20))), [], PixelFolding.encode
    monkeypatch.setattr(
        PixelFolding,
        "encode",
        lambda self, images: shapes.append(len(images)) or real(self, images),
    )
    new, extractor = make(tmp_path / "new", parts(records)), Extractor()
    assert encode(new, parts(records), reusable=ReusableRows(old, new, "encodings")) == 2
    new.begin_group("lune", extractor.fingerprint())
    seen, answer = [], extractor.extract
    extractor.extract = lambda latents, tokens, ids: (
        seen.append((len(latents), len(tokens), len(ids))) or answer(latents, tokens, ids)
    )
    assert (
        extract(new, parts(records), extractor, shared, reusable=ReusableRows(old, new, "lune"))
        == 2
    )
    assert set(shapes) == {4} and seen == [(4, 4, 4)] * 2
