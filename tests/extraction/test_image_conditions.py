"""Image pairs from a folder to a loss: image conditions return from the cache row by row."""

import functools

import pytest
import torch

from tests.data.records.test_image_pairs import mask, picture
from tests.denoisers.test_tinyflux import SIZES
from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.mixture import Mixture
from tinyflux_pl.cache.sample_keys import keys_of
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import SpecMismatch
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.denoisers.tinyflux import build
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.timesteps import Uniform
from tinyflux_pl.extraction.encode import encode, encodings_fingerprint
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.text.hashed_words import HashedWords

CODEC, TEXT = PixelFolding(2), HashedWords(12, 6)


@pytest.fixture
def cached(tmp_path):
    """kind -> (records, dataset) of three pairs with two references, or with an inpaint mask."""

    def of(kind):
        root = tmp_path / kind
        for i in range(3):
            picture(root / f"p{i}_target.png", i)
            (root / f"p{i}_caption.txt").write_text(f"night {i}")
            if kind == "inpaint":
                mask(root / f"p{i}_mask.png", (i, 2, i + 5, 7))
            else:
                picture(root / f"p{i}_ref1.png", 10 + i)
                picture(root / f"p{i}_ref2.png", 20 + i)
        records = PairedImages(root, (12, 16), (8, 16), split="all")
        identity = ("pairs", 3, 2, records.fingerprint(), functools.partial(keys_of, records))
        store = CacheStore.create(tmp_path / f"{kind}_store", *identity)
        store.begin_group("encodings", encodings_fingerprint(CODEC, TEXT, "float32"))
        with store.writing():
            encode(store, records, CODEC, TEXT, torch.float32, "pairs", batch=2)
        return records, CachedDataset(store)

    return of


def pixels(picture):
    return torch.tensor(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def losses(batch, inpaint):
    denoiser = build(CODEC.latent_spec, TEXT.text_spec, LinearPath(), inpaint=inpaint, **SIZES)
    with torch.no_grad():  # a new network answers nothing
        denoiser.net.final_linear.weight.normal_()
        denoiser.net.img_in.weight.normal_()
    objective = FlowObjective(Uniform(), TEXT.null())
    return objective.loss(denoiser, batch, 0)["flow"], FixedGrid().errors(denoiser, batch)[
        "validation/loss"
    ]


def test_cached_references_equal_the_codecs_and_change_the_loss(cached):
    records, dataset = cached("references")
    batch = Mixture({0: dataset}).__getitems__([2, 0])
    assert batch.inpaint is None and [r.shape for r in batch.references] == [(2, 12, 4, 8)] * 2
    for k in range(2):
        for row, index in enumerate((2, 0)):
            expected = CODEC.encode(pixels(records[index].references[k]))[0]
            torch.testing.assert_close(batch.references[k][row], expected)
    with_references = losses(batch, False)
    without = losses(type(batch)(**{**vars(batch), "references": ()}), False)
    assert all(
        bool(torch.isfinite(a)) and not torch.equal(a, b)
        for a, b in zip(with_references, without, strict=True)
    )


def test_a_cached_inpaint_mask_equals_the_codecs_and_trains(cached):
    records, dataset = cached("inpaint")
    batch = Mixture({0: dataset}).__getitems__([2, 0])
    inpaint = torch.tensor(records[2].inpaint_mask)[None, None].float()
    torch.testing.assert_close(
        batch.inpaint[:1], inpaint_input(CODEC, pixels(records[2].image), inpaint)
    )
    assert batch.references == () and batch.to("cpu").inpaint is not None
    assert all(bool(torch.isfinite(loss)) for loss in losses(batch, True))


def test_sources_with_different_image_inputs_are_not_mixed(cached):
    with pytest.raises(SpecMismatch, match="image inputs differ"):
        Mixture({0: cached("references")[1], 1: cached("inpaint")[1]})
