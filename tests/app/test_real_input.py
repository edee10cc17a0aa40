"""Photographs through real kinds of codec, text encoder and teacher, from files to images."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests import releases
from tests.app.runs import configuration, photographs, run
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.text.clip_t5 import ClipT5

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "retina", "page")
SMALL = (
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.attention_head_dim=16",
    "model.axes_dims_rope=[4,6,6]",
    "model.num_double_layers=1",
    "model.num_single_layers=1",
    "hardware.precision=32-true",
)
BUCKETS = 10


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Overrides that name small random checkpoints in the layout of the releases."""
    return releases.all_of(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("my photos, [2024]"), NAMES)


@pytest.fixture(scope="module")
def project(tmp_path_factory, real, photos):
    """Extracted, then trained, as two commands do it."""
    root = tmp_path_factory.mktemp("project")
    chosen = (
        *real,
        "data=folder",
        f"data.root='{photos}'",
        "experts=lune_sol",
        "model=tiny",
        *SMALL,
    )
    run("extract", root, *chosen)
    before = shards(root)
    run("train", root, *chosen, "run=photos")
    assert shards(root) == before, "training reads what extract.py made"
    return root


def shards(root):
    return {p: p.stat().st_mtime_ns for p in (root / "cache").rglob("shard_*")}


def read(root, split="train"):
    return CacheStore.open(root / "cache" / "folder" / split)


def everything(store, key):
    return store.gather(key, range(len(store)))


def test_the_cache_holds_features_of_every_photograph(project, photos):
    store, count = read(project), len(NAMES) - 1
    assert len(store) == count and len(read(project, "validation")) == 1
    shapes = {key: tuple(everything(store, key).shape) for key in store.layout("encodings")}
    assert shapes == {
        "latents": (count, 16, 8, 8),
        "text.tokens": (count, 16, releases.T5_WIDTH),
        "text.mask": (count, 16),
        "text.pooled": (count, releases.CLIP_WIDTH),
        "size_ids": (count, 6),
        "sample_ids": (count,),
    }
    sizes = everything(store, "size_ids").tolist()
    for caption, recorded in zip(store.captions(range(count)), sizes, strict=True):
        (file,) = photos.glob(f"{caption.split()[3].rstrip(',')}.[pj]*")
        with Image.open(file) as picture:
            assert recorded[:2] == [picture.height, picture.width] and recorded[4:] == [64, 64]
    assert everything(store, "lune.features").shape == (count, BUCKETS, releases.LUNE_WIDTH)
    assert everything(store, "sol.stats").shape == (count, BUCKETS, 4)
    spatial = everything(store, "sol.spatial").float()
    assert spatial.shape == (count, BUCKETS, 8, 8)
    torch.testing.assert_close(spatial.sum((2, 3)), torch.ones(count, BUCKETS), atol=1e-2, rtol=0)
    for key in ("lune.features", "sol.stats", "sol.spatial"):
        rows = everything(store, key).float()
        assert rows.isfinite().all() and (rows.flatten(1).std(0) > 0).any(), (
            f"{key} is the same for all photographs"
        )


def test_latents_and_text_equal_those_of_photograph_and_caption(project, real, photos):
    from tinyflux_pl.data.images.decode import decode
    from tinyflux_pl.data.images.fit import fit

    config = configuration("extract", project, *real)
    codec = AutoencoderKLCodec(config["codec"]["weights"])
    text = ClipT5(config["text"]["t5"], config["text"]["clip"], length=16)
    store = read(project)
    row, caption = next(
        (i, c) for i, c in enumerate(store.captions(range(len(store)))) if "coffee" in c
    )
    pixels = (
        torch.from_numpy(fit(decode(photos / "coffee.jpg"), 64).copy())
        .permute(2, 0, 1)[None]
        .float()
    )
    latents = codec.encode(pixels / 127.5 - 1)
    torch.testing.assert_close(
        everything(store, "latents")[row].float(), latents[0], atol=2e-3, rtol=2e-3
    )
    embeddings = text.encode([caption])
    torch.testing.assert_close(
        everything(store, "text.tokens")[row].float(), embeddings.tokens[0], atol=2e-3, rtol=2e-3
    )
    torch.testing.assert_close(
        everything(store, "text.pooled")[row].float(), embeddings.pooled[0], atol=2e-3, rtol=2e-3
    )


def test_training_on_photographs_gives_a_checkpoint_that_samples(project):
    folder = project / "outputs" / "photos"
    results = json.loads((folder / "results.json").read_text())
    assert (
        results["steps"] == 8
        and results["experts"] == ["lune", "sol"]
        and results["prompt_accuracy"] is None
    )
    header = (folder / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/flow", "train/lune", "train/sol"} <= set(header)
    early, late = (
        directory.read(folder / "checkpoints" / f"step_{n:07d}").weights("raw") for n in (4, 8)
    )
    assert not torch.equal(early["net.img_in.weight"], late["net.img_in.weight"])
    run(
        "generate",
        project,
        f"checkpoint='{folder}'",
        "prompt='a photograph, [red]'",
        "n=2",
        "run=drawn",
    )
    pictures = [Image.open(project / "outputs" / "drawn" / f"image_{i:04d}.png") for i in range(2)]
    assert [p.size for p in pictures] == [(64, 64)] * 2
    assert not np.array_equal(*(np.asarray(p) for p in pictures))


@pytest.fixture(scope="module")
def masked(tmp_path_factory, photos):
    """The photographs described by metadata.jsonl, each with a mask."""
    folder = tmp_path_factory.mktemp("masked")
    rows = []
    for file in sorted(photos.glob("*.*g")):
        shutil.copy(file, folder / file.name)
        width, height = Image.open(file).size
        mask = Image.new("L", (width, height), 0)
        mask.paste(255, (0, 0, width // 2, height))  # the left half counts
        mask.save(folder / f"{file.stem}.mask.png")
        rows.append(json.dumps({"file_name": file.name, "text": f"the {file.stem}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def test_metadata_captions_masks_and_rectangular_sizes_train(tmp_path, real, masked):
    chosen = (
        "data=folder",
        f"data.root='{masked}'",
        "data.image_size=[48,64]",
        "experts=lune_sol",
        "run=wide",
    )
    run("train", tmp_path, *real, *chosen, "model=tiny", *SMALL)
    store = read(tmp_path)
    assert sorted(store.captions(range(len(store))))[0].startswith("the ")
    assert everything(store, "latents").shape[1:] == (16, 6, 8)
    assert everything(store, "sol.spatial").shape[1:] == (BUCKETS, 8, 8)
    masks = everything(store, "masks").float()
    assert masks.shape[1:] == (6, 8)
    assert (masks[..., 0] == 1).all() and (masks[..., -1] == 0).all(), (
        "the masks lie as the pictures do"
    )
    folder = tmp_path / "outputs" / "wide"
    run("generate", tmp_path, f"checkpoint='{folder}'", "prompt=x", "run=drawn")
    assert Image.open(tmp_path / "outputs" / "drawn" / "image_0000.png").size == (64, 48)


def test_masks_weight_the_loss(tmp_path, masked):
    """The same data with the foreground weighed otherwise gives another first loss."""
    first = []
    for foreground in (2.0, 0.5):
        root = tmp_path / str(foreground)
        chosen = ("data=folder", f"data.root='{masked}'", "data.image_size=16", "run=x", "steps=1")
        run(
            "train",
            root,
            *chosen,
            f"objective.foreground={foreground}",
            "objective.background=0.5",
            *SMALL,
        )
        rows = (root / "outputs" / "x" / "csv" / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("train/flow")
        first.append(
            next(float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column])
        )
    assert first[0] > 1.2 * first[1]


def test_runs_of_other_seeds_share_the_cache(project, real, photos):
    before = shards(project)
    chosen = (*real, "data=folder", f"data.root='{photos}'", "experts=lune_sol", *SMALL)
    run("train", project, *chosen, "seed=1", "steps=1", "run=seed_1")
    assert shards(project) == before
