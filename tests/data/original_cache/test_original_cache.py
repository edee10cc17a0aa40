"""Caches of the original trainer: the same rows of both layouts, and refusals before any use."""

import json
import os
import zipfile

import pytest
import torch

from tests import original_caches
from tests.original_caches import COUNT, PROMPTS, write, write_shards
from tinyflux_pl.core.errors import CaptionError, DataError, TinyFluxError, UntrustedFile
from tinyflux_pl.data.original_cache.records import OriginalCache

GROUPS = ("encodings", "lune", "sol")


def everything(records):
    """Captions, ids, keys and columns of records, as they would be stored."""
    rows = range(len(records))
    columns = {
        name: part for group in GROUPS for name, part in records.columns(group, rows).items()
    }
    read = [records[row] for row in rows]
    return [r.caption for r in read], [r.sample_id for r in read], records.sample_keys(), columns


def test_both_layouts_hold_the_same_records(tmp_path):
    single = OriginalCache(write(tmp_path / "single"), "all")
    sharded = OriginalCache(write_shards(tmp_path / "shards"), "all")
    captions, ids, keys, columns = everything(single)
    assert captions == PROMPTS and len({*ids}) == COUNT
    other = everything(sharded)
    assert other[:3] == (captions, ids, keys)
    assert all(torch.equal(other[3][name], part) for name, part in columns.items())
    assert single.fingerprint() == sharded.fingerprint()
    parts = original_caches.tensors()
    assert torch.equal(columns["latents"], parts["encodings"]["latents"])
    assert torch.equal(columns["sol.spatial"], parts["sol"]["spatial"])


def test_every_row_lies_in_one_split_that_depends_on_its_content(tmp_path):
    root = write(tmp_path / "original")
    train, validation = (OriginalCache(root, split, 0.3) for split in ("train", "validation"))
    assert len(train) + len(validation) == COUNT and len(validation) >= 1
    assert not {*everything(train)[0]} & {*everything(validation)[0]}
    moved = OriginalCache(write(tmp_path / "moved"), "validation", 0.3)
    assert everything(moved)[:3] == everything(validation)[:3]


def test_a_record_has_no_picture_and_no_file_is_left_unnamed(tmp_path):
    root = write(tmp_path / "original")
    (root / "lune_v2.pt").write_bytes(b"")
    records = OriginalCache(root)
    assert not records.has_pictures and not records[0].has_picture
    assert [finding.names for finding in records.findings] == [("lune_v2.pt",)]


def nan(shape):
    tensor = torch.zeros(shape, dtype=torch.float16)
    tensor[(4, *[0] * (len(shape) - 1))] = torch.nan
    return tensor


LATENTS, BUCKETS = (COUNT, 48, 8, 8), 10
FAULTS = {
    "no tensor 'latents'": ("encodings", {"latents": None}),
    "latents is int16": ("encodings", {"latents": torch.ones(LATENTS, dtype=torch.int16)}),
    "latents is float64": ("encodings", {"latents": torch.ones(LATENTS, dtype=torch.float64)}),
    "not 4 axes": ("encodings", {"latents": torch.ones(COUNT, 48)}),
    "latents of row 4 is not finite": ("encodings", {"latents": nan(LATENTS)}),
    "rows of its tensors": ("encodings", {"clip_pooled": torch.ones(COUNT - 1, 16)}),
    "prompts: 2, and 6 rows": ("encodings", {"prompts": PROMPTS[:2]}),
    "the prompt of row 5 is no text": ("encodings", {"prompts": [*PROMPTS[:5], 5]}),
    "the prompt of row 0 is no text": ("encodings", {"prompts": ["a\0b", *PROMPTS[1:]]}),
    "lune has 5 rows, the encodings 6": ("lune", {"features": torch.ones(5, BUCKETS, 20)}),
    "9 times in t_buckets": ("lune", {"t_buckets": torch.arange(9) / 10}),
    "rising": ("sol", {"t_buckets": torch.arange(10).flip(0) / 10}),
    "t_buckets holds no times": ("sol", {"t_buckets": torch.arange(10)}),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_file_of_another_content_is_named_with_its_fault(tmp_path, message):
    part, change = FAULTS[message]
    root = write(tmp_path / "original", **{part: change})
    with pytest.raises(DataError, match=message) as caught:
        OriginalCache(root).check()
    assert "original" in caught.value.where and caught.value.cure


class Payload:
    """Unpickling one makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def expanded(root):
    torch.save({"features": torch.ones(1).expand(COUNT, 10, 10**6)}, root / "lune.pt")


def compressed(root):
    with zipfile.ZipFile(root / "lune.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(root / "lune.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)


@pytest.mark.parametrize("part", ["encodings", "lune", "sol"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, part):
    marker = tmp_path / "marker"
    root = write(tmp_path / "original", **{part: {"extra": Payload(marker)}})
    with pytest.raises(UntrustedFile, match="nothing was run") as caught:
        OriginalCache(root)
    assert not marker.exists() and caught.value.cure


def sparse(root):
    torch.save(
        {"features": torch.sparse_coo_tensor(size=(COUNT, 10, 10**9), check_invariants=True)},
        root / "lune.pt",
    )


@pytest.mark.parametrize("attack", [expanded, compressed, sparse])
def test_a_file_that_unfolds_in_memory_is_refused(tmp_path, attack):
    root = write(tmp_path / "original")
    attack(root)
    with pytest.raises(UntrustedFile, match="bytes"):
        OriginalCache(root)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}.", None])
def test_a_torn_file_is_refused(tmp_path, content):
    file = write(tmp_path / "original") / "sol.pt"
    file.write_bytes(file.read_bytes()[:-500] if content is None else content)
    with pytest.raises(DataError, match=r"sol\.pt is missing, truncated, or no archive"):
        OriginalCache(file.parent)


def test_a_file_that_changes_after_it_was_opened_stops_the_reading(tmp_path):
    root = write(tmp_path / "original")
    records = OriginalCache(root)
    os.utime(root / "lune.pt", ns=(1, 1))
    assert records.columns("sol", [0])
    with pytest.raises(DataError, match="changed after it was opened"):
        records.columns("lune", [0])


def without_shard(root):
    (root / "lune" / "shard_0001.pt").unlink()


def without_state(root):
    (root / "state.json").unlink()


def other_state(root):
    (root / "state.json").write_text(json.dumps({"completed_shards": "all"}))


def two_layouts(root):
    torch.save({}, root / "sol.pt")


def empty(root):
    for file in (root / "encodings").iterdir():
        file.unlink()


SHARD_FAULTS = {
    "the first missing one is 1": without_shard,
    "state.json cannot be read": without_state,
    "holds no completed_shards": other_state,
    "both sol.pt and shards": two_layouts,
    "no encodings.pt": empty,
}


@pytest.mark.parametrize("message", SHARD_FAULTS)
def test_shards_that_do_not_belong_together_are_refused(tmp_path, message):
    root = write_shards(tmp_path / "shards")
    SHARD_FAULTS[message](root)
    with pytest.raises(TinyFluxError, match=message) as caught:
        OriginalCache(root)
    assert isinstance(caught.value, DataError) and caught.value.where and caught.value.cure


def test_a_build_that_was_stopped_is_refused(tmp_path):
    root = write_shards(tmp_path / "shards", completed=1)
    with pytest.raises(DataError, match="completed 1 of 2 shards") as caught:
        OriginalCache(root)
    assert "finish the build" in caught.value.cure


def test_a_cache_without_prompts_is_used_with_consent_alone(tmp_path):
    root = write(tmp_path / "original", encodings={"prompts": None})
    with pytest.raises(CaptionError, match="no prompts") as caught:
        OriginalCache(root)
    assert "data.allow_missing_captions=true" in caught.value.cure
    records = OriginalCache(root, allow_missing_captions=True)
    assert {record.caption for record in (records[k] for k in range(len(records)))} == {""}
