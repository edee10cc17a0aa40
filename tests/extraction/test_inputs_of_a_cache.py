"""Every input that decides a cache entry is in its key or fingerprint, each tested alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests import releases
from tests.experts.conftest import make_teacher
from tinyflux_pl.app.caches.group_fingerprints import expert_fingerprint
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.data.records import folder as folder_records
from tinyflux_pl.data.records import image_pairs as paired_images
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.extraction.encode import encodings_fingerprint
from tinyflux_pl.text.clip_t5 import ClipT5
from tinyflux_pl.text.hashed_words import HashedWords


def draw(file, seed, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture = (
        picture if mode == "RGB" else Image.fromarray((pixels[..., 0] > 127).astype(np.uint8) * 255)
    )
    picture.save(file)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        draw(tmp_path / "pictures" / f"{i}.png", i)
        draw(tmp_path / "pictures" / f"{i}.mask.png", 10 + i, "L")
        (tmp_path / "pictures" / f"{i}.txt").write_text(f"picture {i}")
    return tmp_path / "pictures"


CHANGES = {  # what is done to the files, what is asked for; None: the version of the decoding
    "image": (lambda root: draw(root / "1.png", 99), {}),
    "mask": (lambda root: draw(root / "1.mask.png", 99, "L"), {}),
    "caption": (lambda root: (root / "1.txt").write_text("another"), {}),
    "size": (lambda root: None, {"size": 24}),
    "fit mode": (lambda root: None, {"fit_mode": "pad"}),
    "decoding version": (None, {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_input_of_a_folder_enters_sample_keys_and_fingerprint(pictures, monkeypatch, name):
    change, options = CHANGES[name]
    arguments = {"size": 16, "split": "all"}
    before = Folder(pictures, **arguments)
    keys, fingerprint = keys_of(before), before.fingerprint()
    assert np.array_equal(keys_of(Folder(pictures, **arguments)), keys)
    if change is None:
        monkeypatch.setattr(folder_records, "DECODING_VERSION", folder_records.DECODING_VERSION + 1)
    else:
        change(pictures)
    after = Folder(pictures, **{**arguments, **options})
    changed = (keys_of(after) != keys).any(1).sum()
    assert changed == (1 if name in ("image", "mask", "caption") else 3)
    assert after.fingerprint() != fingerprint


def test_every_input_of_an_image_pair_enters_its_key(tmp_path, monkeypatch):
    for i in range(2):
        for kind in ("target", "reference"):
            draw(tmp_path / f"{i}_{kind}.png", 10 * i + len(kind))
    rows = "\n".join(
        f'{{"target": "{i}_target.png", "reference": "{i}_reference.png", "caption": "make it '
        f'{i}"}}'
        for i in range(2)
    )
    (tmp_path / "metadata.jsonl").write_text(rows)

    def keys(**options):
        return keys_of(
            PairedImages(tmp_path, **{"size": 16, "reference_size": 16, "split": "all", **options})
        )

    original_keys = keys()
    assert (keys(size=24) != original_keys).any(1).all() and (
        keys(reference_size=24) != original_keys
    ).any(1).all()
    draw(tmp_path / "1_reference.png", 77)
    assert (keys() != original_keys).any(1).sum() == 1
    monkeypatch.setattr(paired_images, "DECODING_VERSION", paired_images.DECODING_VERSION + 1)
    assert (keys() != original_keys).any(1).all()


def different(one, other):
    """Dotted names of what is not equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = sorted(one.keys() | other.keys())
        return [f"{k}.{n}".strip(".") for k in both for n in different(one.get(k), other.get(k))]
    return [] if one == other else [""]


def test_extraction_precision_and_dtype_enter_an_experts_fingerprint():
    extractor = Lune(16).extractor(make_teacher("lune"), LinearPath(), seed=0)

    def fingerprint(precision="32-true", dtype="float16"):
        config = SimpleNamespace(data=SimpleNamespace(store_dtype=dtype))
        return expert_fingerprint(SimpleNamespace(config=config, precision=precision), extractor)

    assert different(fingerprint(), fingerprint(precision="bf16-mixed")) == ["precision"]
    assert different(fingerprint(), fingerprint(dtype="float32")) == ["dtype"]


def test_the_compute_dtype_of_a_teacher_enters_its_fingerprint():
    exact, rounded = make_teacher("lune"), make_teacher("lune")
    rounded.network.to(torch.bfloat16)
    assert different(exact.fingerprint(), rounded.fingerprint()) == ["dtype"]


def test_dtype_and_scaling_of_an_autoencoder_enter_the_fingerprint(tmp_path):
    releases.vae(
        tmp_path,
        block_out_channels=(8, 8, 16),
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    plain = AutoencoderKLCodec(str(tmp_path)).fingerprint()
    assert different(plain, AutoencoderKLCodec(str(tmp_path), dtype="bfloat16").fingerprint()) == [
        "dtype"
    ]
    assert "shift" in different(
        plain, AutoencoderKLCodec(str(tmp_path), scaling="unshifted").fingerprint()
    )


def test_length_and_dtype_of_text_encoders_enter_the_fingerprint(tmp_path):
    folders = str(releases.flan_t5(tmp_path / "t5")), str(releases.clip(tmp_path / "clip"))
    plain = ClipT5(*folders, length=12).fingerprint()
    assert different(plain, ClipT5(*folders, length=16).fingerprint()) == ["length"]
    assert different(plain, ClipT5(*folders, length=12, dtype="bfloat16").fingerprint()) == [
        "dtype"
    ]


@pytest.mark.parametrize(("one", "other"), [((16, 6), (16, 8)), ((16, 6), (24, 6))])
def test_sizes_of_hashed_words_enter_the_fingerprint(one, other):
    assert HashedWords(*one).fingerprint() != HashedWords(*other).fingerprint()


def test_the_encodings_fingerprint_names_every_part():
    codec, text = make_teacher("lune").codec, HashedWords(16, 6)
    assert set(encodings_fingerprint(codec, text, "float16")) == {"codec", "text", "dtype"}
    fingerprints = [encodings_fingerprint(codec, text, dtype) for dtype in ("float16", "float32")]
    assert different(*fingerprints) == ["dtype"]
