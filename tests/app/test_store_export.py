"""doctor=STORE export_pt=FOLDER: the original's files, which read back as the same bits."""

import shutil

import pytest
import torch
from PIL import Image

from tests import original_caches
from tests.app.runs import configuration, run
from tests.original_caches import FITTING, write
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.data.original_cache import export

ORIGINAL = ("data=original_cache", *FITTING, "experts=lune_sol")
ALL = ("data.sources.original_cache.train.split=all",)
SMALL_TEXT = ("text.width=16", "text.length=8")


def export_of(root, store, target, *more):
    words = (f"doctor='{store}'", f"export_pt='{target}'", *more)
    return recipes.extract(configuration("extract", root / "elsewhere", *words))


def columns_of(root):
    store = CacheStore.open(root / "cache" / "original_cache" / "train")
    rows = range(len(store))
    names = [name for group in store.groups() for name in store.layout(group)]
    return {name: store.gather(name, rows) for name in names} | {"": store.captions(rows)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The training store of three pictures with Lune, as this project extracts them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "photos").mkdir()
    for k in range(4):
        Image.new("RGB", (32, 32), (60 * k, 80, 200)).save(root / "photos" / f"{k}.png")
        (root / "photos" / f"{k}.txt").write_text(f"picture number {k}")
    data = ("data=folder", f"data.root='{root}/photos'", "data.image_size=32")
    run("extract", root, *data, *SMALL_TEXT, "experts=lune")
    return root / "cache" / "folder" / "train"


def test_a_cache_of_the_original_survives_a_round_trip(tmp_path):
    run("extract", tmp_path, *ORIGINAL, f"data.root='{write(tmp_path / 'original')}'", *ALL)
    first, target = columns_of(tmp_path), tmp_path / "exported"
    assert export_of(tmp_path, tmp_path / "cache" / "original_cache" / "train", target) == 0
    assert sorted(p.name for p in target.iterdir()) == [
        *("encodings.pt", "lune.pt", "meta.pt", "sol.pt"),
    ]
    for name, expected in original_caches.tensors().items():
        content = torch.load(target / f"{name}.pt", weights_only=True)
        assert content.keys() == expected.keys()
        for key, value in expected.items():
            same = torch.equal(content[key], value) if torch.is_tensor(value) else None
            assert same if same is not None else content[key] == value, key
    again = tmp_path / "again"
    run("extract", again, *ORIGINAL, f"data.root='{target}'", *ALL)
    second = columns_of(again)
    assert second.keys() == first.keys() and second[""] == first[""]
    assert all(torch.equal(second[k], v) for k, v in first.items() if k)


def test_pictures_of_this_project_are_exported_with_the_clock_of_their_teachers(pictures, tmp_path):
    target = tmp_path / "exported"
    assert export_of(tmp_path, pictures, target) == 0
    words = ("data=original_cache", f"data.root='{target}'", "data.image_size=32")
    words = (*words, "codec=pixels", "text=hashed", "teacher=embedded", "experts=lune", *ALL)
    words = (*words, *SMALL_TEXT)
    run("extract", tmp_path, *words)
    store = CacheStore.open(pictures)
    copied = CacheStore.open(tmp_path / "cache" / "original_cache" / "train")
    for name in ("latents", "text.tokens", "text.mask", "text.pooled", "lune.features"):
        rows = range(len(store))
        assert torch.equal(copied.gather(name, rows), store.gather(name, rows)), name
    with pytest.raises(ConfigError, match="cached with clock=matched"):
        run("extract", tmp_path, *words, "experts.lune.clock=literal")


def test_the_export_is_all_or_nothing(pictures, tmp_path, monkeypatch):
    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_meta", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_of(tmp_path, pictures, tmp_path / "exported")
    assert not [path for path in tmp_path.iterdir() if path.name != "elsewhere"]


def test_a_damaged_store_is_not_exported(pictures, tmp_path):
    store = shutil.copytree(pictures, tmp_path / "train")
    shard = store / "lune" / "shard_00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert export_of(tmp_path, store, tmp_path / "exported") == 1
    assert not (tmp_path / "exported").exists()


def test_several_stores_an_existing_folder_and_no_doctor_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match="2 caches lie below"):
        export_of(tmp_path, pictures.parent, tmp_path / "exported")
    with pytest.raises(DataError, match="exists already"):
        export_of(tmp_path, pictures, tmp_path)
    with pytest.raises(ConfigError, match="works with doctor= only"):
        run("extract", tmp_path, "export_pt=exported")


REFUSED = {
    "caption.1.mask": ("several", {"caption.1.mask": torch.ones(2, 4, dtype=torch.bool)}),
    "masks": ("masked", {"masks": torch.ones(2, 8, 8)}),
    "reference.0": ("paired", {"reference.0": torch.ones(2, 3, 8, 8)}),
    "text.tokens is None": ("untexted", {"text.tokens": None}),
}


def small_store(root, changes, segments=()):
    """Two rows of encodings with `changes` of their columns."""
    store = CacheStore.create(root, "small", 2, 1, {}, segments=segments)
    store.begin_group("encodings", {})
    columns = {"latents": torch.ones(2, 3, 8, 8), "text.tokens": torch.ones(2, 4, 6)}
    columns |= {"text.mask": torch.ones(2, 4, dtype=torch.bool), "text.pooled": torch.ones(2, 6)}
    columns |= {"sample_ids": torch.arange(2)} | changes
    for k in range(2):
        rows = {name: part[k : k + 1] for name, part in columns.items() if part is not None}
        store.write_shard("encodings", k, rows, ["caption"])
    return store


@pytest.mark.parametrize("name", REFUSED)
def test_a_column_that_the_layout_cannot_express_is_refused_by_name(tmp_path, name):
    store = small_store(tmp_path / "store", REFUSED[name][1])
    with pytest.raises(DataError, match=name) as caught:
        export.write_cache(store, tmp_path / "exported")
    assert caught.value.where and caught.value.cure and not (tmp_path / "exported").exists()


def test_pictures_of_several_shapes_are_refused(tmp_path):
    store = small_store(tmp_path / "store", {}, segments=(1, 1))
    with pytest.raises(DataError, match="several shapes"):
        export.write_cache(store, tmp_path / "exported")


def test_four_statistics_of_sol_and_an_unfinished_group_are_refused(tmp_path):
    store = small_store(tmp_path / "store", {})
    store.begin_group("sol", {"t_buckets": [0.5], "clock": "matched"})
    with pytest.raises(DataError, match="sol lacks 2 shards"):
        export.require_expressible(store)
    for k in range(2):
        columns = {"sol.stats": torch.ones(1, 1, 4), "sol.spatial": torch.ones(1, 1, 8, 8)}
        store.write_shard("sol", k, columns)
    with pytest.raises(DataError, match="Sol has four statistics") as caught:
        export.require_expressible(store)
    assert "experts.sol.stats=3" in caught.value.cure
