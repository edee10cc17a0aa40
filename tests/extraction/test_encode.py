"""Records to store: interrupted, resumed and extended, and always the same bytes."""

import functools

import pytest
import torch

from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.extraction import encode as encoding
from tinyflux_pl.text.hashed_words import HashedWords


class Extractor:
    """Keeps the mean of what it is shown, for two buckets."""

    name, device = "lune", torch.device("cpu")

    def __init__(self):
        self.calls = 0

    def fingerprint(self):
        return {"teacher": "mean"}

    def extract(self, latents, text, sample_ids):
        self.calls += 1
        both = torch.stack([latents.mean((1, 2, 3)), text.pooled.mean(1)], 1)
        return {"lune.features": both[..., None]}


@pytest.fixture
def parts():
    return Shapes(count=22), PixelFolding(2), HashedWords(16, 12)


def make(root, parts):
    records, codec, text = parts
    keys = functools.partial(keys_of, records)
    store = CacheStore.create(root, "shapes", len(records), 8, records.fingerprint(), keys)
    store.begin_group("encodings", encoding.encodings_fingerprint(codec, text, "float32"))
    return store


def encode(store, parts, batch=4, reusable=None):
    return encoding.encode(store, *parts, torch.float32, "test", batch=batch, reusable=reusable)


def extract(
    store, parts, extractor, shared=True, batch=4, reusable=None, dtype=torch.float32, copies=()
):
    records, codec, text = parts
    store.begin_group("lune", extractor.fingerprint())
    options = (dtype, "32-true", "test", batch, reusable, copies)
    return encoding.extract(store, records, extractor, codec, text, shared, *options)


def shards(root, group="encodings"):
    return {p.name: p.read_bytes() for p in sorted((root / group).glob("*.safetensors"))}


def test_the_store_equals_the_outputs_of_codec_and_text_encoder(tmp_path, parts):
    records, codec, text = parts
    store = make(tmp_path / "s", parts)
    encode(store, parts)
    batch = CachedDataset(store).__getitems__([0, 9, 21])
    chosen = [records[i] for i in (0, 9, 21)]
    assert batch.captions == [r.caption for r in chosen]
    assert batch.sample_ids.tolist() == [r.sample_id for r in chosen]
    pixels = (
        codec.decode(batch.latents).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    )
    assert all((pixels[i] == chosen[i].image).all() for i in range(3))
    assert torch.equal(batch.text.pooled, text.encode(batch.captions).pooled)
    assert batch.masks.shape == (3, 16, 16) and 0 < float(batch.masks.mean()) < 0.5


def test_a_resumed_encoding_ends_with_the_same_bytes(tmp_path, parts, monkeypatch):
    uninterrupted = make(tmp_path / "whole", parts)
    encode(uninterrupted, parts)
    broken, real, written = make(tmp_path / "broken", parts), CacheStore.write_shard, []

    def dies_on_the_second(self, *arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(CacheStore, "write_shard", dies_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        encode(broken, parts)
    monkeypatch.setattr(CacheStore, "write_shard", real)
    again = make(tmp_path / "broken", parts)
    assert again.pending("encodings") == [1, 2]
    encode(again, parts)
    assert shards(tmp_path / "whole") == shards(tmp_path / "broken")


def test_adding_an_expert_does_not_encode_again(tmp_path, parts, monkeypatch):
    store = make(tmp_path / "s", parts)
    encode(store, parts)
    before = shards(tmp_path / "s")
    extractor = Extractor()
    monkeypatch.setattr(PixelFolding, "encode", None)  # nothing may be encoded
    extract(store, parts, extractor)
    assert shards(tmp_path / "s") == before and store.complete("lune")
    assert extractor.calls == 6  # 8 + 8 + 6 rows, four at a time
    batch = CachedDataset(store, ["lune"]).__getitems__([3])
    assert batch.experts["lune.features"].shape == (1, 2, 1) and bool(
        batch.expert_present["lune"][0]
    )
    extract(store, parts, extractor)
    assert extractor.calls == 6  # complete: nothing left to do


@pytest.mark.parametrize("shared", [True, False])
def test_parallel_extractors_write_the_bytes_of_a_single_one(tmp_path, parts, shared):
    roots, extractors = [], (Extractor(), [Extractor(), Extractor()])
    for name, copies in (("alone", ()), ("parallel", extractors[1])):
        store = make(tmp_path / name, parts)
        encode(store, parts)
        extract(store, parts, extractors[0], shared, copies=copies)
        roots.append(store.root)
    assert shards(roots[0], "lune") == shards(roots[1], "lune") and any(
        e.calls for e in extractors[1]
    )


def test_a_teacher_with_its_own_codec_receives_pixels(tmp_path, parts):
    shared, separate = make(tmp_path / "a", parts), make(tmp_path / "b", parts)
    for store, flag in ((shared, True), (separate, False)):
        encode(store, parts)
        extract(store, parts, Extractor(), shared=flag)
    rows = list(range(22))
    assert torch.equal(shared.gather("lune.features", rows), separate.gather("lune.features", rows))


def test_teacher_inputs_are_rounded_like_the_store_in_every_code_path(tmp_path, parts):
    records, codec, text = parts
    store, seen = make(tmp_path / "s", parts), []
    encoding.encode(store, *parts, torch.float16, "test", batch=4)
    for name, shared in (("lune", True), ("sol", False)):
        extractor = Extractor()
        extractor.name = name
        extractor.extract = lambda latents, tokens, ids: (
            seen.append((latents, tokens.tokens, tokens.pooled))
            or {
                f"{name}.x": latents.mean((1, 2, 3))  # noqa: B023
            }
        )
        store.begin_group(name, {})
        options = (torch.float16, "32-true", "test", 4)
        encoding.extract(store, records, extractor, codec, text, shared, *options)
    for one, other in zip(seen[:6], seen[6:], strict=True):
        assert all(
            torch.equal(a, b) and a.is_contiguous() == b.is_contiguous()
            for a, b in zip(one, other, strict=True)
        )
    tokens = text.encode(["red"]).tokens
    assert not torch.equal(tokens, tokens.half().float()), "rounding changes them"


def test_a_complete_cache_is_readable_while_another_process_holds_its_lock(tmp_path, parts):
    store = make(tmp_path / "s", parts)
    encode(store, parts)
    with CacheStore.open(tmp_path / "s").writing():
        again = make(tmp_path / "s", parts)  # begin_group: nothing to write, so nothing to wait for
        assert again.complete("encodings")
