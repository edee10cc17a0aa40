"""Pictures within their budget, at the size that they were drawn at."""

import numpy as np
import pytest
from PIL import Image

from tests.report import folders
from tinyflux_pl.report import pictures


def picture(side, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_enlarged_image_is_stored_at_its_original_size():
    small = picture(32)
    shot = pictures.encode(small.resize((128, 128), Image.Resampling.NEAREST))
    assert (shot.width, shot.height) == (32, 32) and shot.pixels
    assert shot.uri.startswith("data:image/png;base64,")


def test_a_large_image_is_compressed():
    shot = pictures.encode(picture(190))
    assert shot.uri.startswith("data:image/webp;base64,") and not shot.pixels


@pytest.mark.parametrize(("count", "most"), [(3, 5), (16, 16), (100, 7)])
def test_an_even_selection_includes_both_ends(count, most):
    chosen = pictures.evenly(range(count), most)
    assert chosen[0] == 0 and chosen[-1] == count - 1 and len(chosen) == min(count, most)
    assert len(set(chosen)) == len(chosen)


def test_preview_sheets_are_split_into_captioned_images(tmp_path):
    folders.write_sheet(tmp_path, 50)
    previews = pictures.previews({50: tmp_path / "samples" / "step_0000050.png"})
    assert previews.captions == list(folders.CAPTIONS)
    assert set(previews.shots[50]) == set(folders.CAPTIONS) and previews.notes == []


def test_a_sheet_without_a_description_is_not_split(tmp_path):
    picture(200).save(tmp_path / "old.png")
    previews = pictures.previews({1: tmp_path / "old.png"})
    assert previews.captions == [""] and previews.shots[1][""].width == 200


def test_a_damaged_sheet_is_named_and_omitted(tmp_path):
    (tmp_path / "step_0000001.png").write_bytes(b"\x89PNG cut")
    previews = pictures.previews({1: tmp_path / "step_0000001.png"})
    assert previews.shots == {} and "step_0000001.png" in previews.notes[0]


def test_preview_steps_are_thinned_until_the_page_fits(tmp_path):
    sheets = {}
    for step in range(1, 9):
        picture(180, step).save(tmp_path / f"{step}.png")
        sheets[step] = tmp_path / f"{step}.png"
    one = pictures.previews({1: sheets[1]}).shots[1][""].num_bytes
    previews = pictures.previews(sheets, budget=int(3.5 * one))
    assert list(previews.shots) == [1, 4, 8] or len(previews.shots) == 3
    assert max(previews.shots) == 8 and "of 8 steps" in previews.notes[-1]
