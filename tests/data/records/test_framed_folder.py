"""A folder with frames, several captions and rates: records, keys, and the store made from them."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cache.test_pooled_order import sample_order
from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.sample_order import StepRows
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.extraction.encode import encode
from tinyflux_pl.text.hashed_words import HashedWords

SIZES = ((32, 32), (48, 24), (24, 48), (32, 30), (50, 25))
OPTIONS = {
    "size": 16,
    "split": "all",
    "buckets": {"enabled": True, "step": 4},
    "captions": {"several": True, "shuffles": 2, "keep_tags": 0},
    "folders": {"often": {"repeats": 3}},
}


def put(root, colours=(10, 60, 110, 160, 210)):
    for i, (size, colour) in enumerate(zip(SIZES, colours, strict=True)):
        path = root / ("often" if i == 4 else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (colour, 90, 30)).save(path)
        path.with_suffix((".txt", ".caption")[i % 2]).write_text(
            f"one {i}, red, wide\n" + "two words\n" * (i == 2)
        )
    return root


def stored(root, records):
    text = HashedWords(width=8, length=6)
    store = CacheStore.create(
        root,
        "photos",
        len(records),
        2,
        records.fingerprint(),
        lambda: keys_of(records),
        [count for _, count in records.segments],
    )
    store.begin_group("encodings", {})
    encode(
        store,
        records,
        PixelFolding(2),
        text,
        torch.float32,
        "x",
        batch=2,
        variants=records.variants,
    )
    return store, text


def test_records_of_one_frame_lie_together_and_the_crop_is_recorded(tmp_path):
    records = Folder(put(tmp_path), **OPTIONS)
    shapes = [record.image.shape[:2] for record in records]
    assert [(frame, n) for frame, n in records.segments] == [
        (frame, shapes.count(frame)) for frame in dict.fromkeys(shapes)
    ]
    assert len(records.segments) == 3 and sum(n for _, n in records.segments) == 5
    by_name = {record.source: record for record in records}
    assert by_name["1.png"].attributes["size_ids"] == [24, 48, 0, 2, 12, 20]
    height, width = by_name["3.png"].image.shape[:2]
    scale = max(height / 30, width / 32)
    crop = [round((30 * scale - height) / 2), round((32 * scale - width) / 2)]
    assert by_name["3.png"].attributes["size_ids"] == [30, 32, *crop, height, width]
    repeats, weights = records.draw_rates()
    assert sorted(repeats) == [1, 1, 1, 1, 3] and set(weights) == {1.0}
    assert len({record.sample_id for record in records}) == 5


def test_every_caption_of_every_frame_comes_back_from_the_cache(tmp_path):
    records = Folder(put(tmp_path / "photos"), **OPTIONS)
    store, text = stored(tmp_path / "store", records)
    for in_memory in (False, True):
        data = CachedDataset(store, in_memory=in_memory, seed=7)
        assert data.variants == records.variants > 2
        order = sample_order(data.runs, 2, 0, None, [records.draw_rates()])
        seen = set()
        for step in range(40):
            rows = StepRows(order.batch(step), step)
            batch = data.__getitems__(rows)
            for k, (row, caption) in enumerate(zip(rows, batch.captions, strict=True)):
                texts = records[row].captions
                drawn = rng.derive(7, "caption", records[row].sample_id, step) % len(texts)
                assert caption == texts[drawn]
                alone = text.encode([caption]).trimmed()
                length = alone.tokens.shape[1]
                assert torch.equal(batch.text.tokens[k, :length], alone.tokens[0])
                assert int(batch.text.mask[k].sum()) == alone.lengths()[0]
                seen.add((row, caption))
        assert len(seen) == sum(len(record.captions) for record in records)
        assert data[0].captions[0] == records[0].caption  # outside training: the first one


def test_other_frames_captions_or_rules_make_rows_stale_and_rates_do_not(tmp_path):
    base = Folder(put(tmp_path), **OPTIONS)
    for change in (
        {"buckets": {"enabled": True, "step": 8}},
        {"captions": {"several": True, "shuffles": 3, "keep_tags": 0}},
        {"captions": {"trigger": "sks"}},
    ):
        changed = Folder(tmp_path, **{**OPTIONS, **change})
        assert changed.fingerprint() != base.fingerprint()
        assert not np.array_equal(keys_of(changed), keys_of(base))
    same = Folder(tmp_path, **{**OPTIONS, "folders": None})
    assert same.fingerprint() == base.fingerprint() and same.draw_rates() is None


def test_captions_that_disagree_and_folders_without_pictures_are_refused(tmp_path):
    put(tmp_path)
    with pytest.raises(ConfigError, match=r"no picture in oftn"):
        Folder(tmp_path, **{**OPTIONS, "folders": {"oftn": {"repeats": 2}}})
    (tmp_path / "0.caption").write_text("something else")
    with pytest.raises(CaptionError, match=r"0\.txt and 0\.caption are captions of 0\.png"):
        Folder(tmp_path, **OPTIONS)


def test_tables_of_columns_give_captions_and_name_what_is_not_read(tmp_path):
    put(tmp_path)
    names = ["0.png", "1.png", "2.png", "3.png", "often/4.png"]
    lines = [f'{name},"red, {name}",{i}' for i, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text,width", *lines]))
    records = Folder(tmp_path, **{**OPTIONS, "captions": None, "buckets": None})
    assert [record.caption for record in records] == [f"red, {name}" for name in names]
    kinds = {finding.kind: finding.names for finding in records.findings}
    assert kinds["column not read"] == ("width",) and len(kinds[".txt not read"]) == 5
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a\n0.png,b,c\n")
    with pytest.raises(CaptionError, match="not 2 columns"):
        Folder(tmp_path, **OPTIONS)
    rows = "\n".join(f"{name}\tx\n{name}\ty" for name in names)
    (tmp_path / "metadata.csv").rename(tmp_path / "old.bak")
    (tmp_path / "metadata.tsv").write_text(f"file_name\ttext\n{rows}\n")
    several = Folder(tmp_path, **{**OPTIONS, "captions": {"several": True}})
    assert several[0].captions == ("x", "y")
    with pytest.raises(CaptionError, match="has two captions"):
        Folder(tmp_path, **{**OPTIONS, "captions": None})
