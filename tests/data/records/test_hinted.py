"""Records with maps of a control branch: computed, or given by name."""

import json

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.data.images.canny import canny_map
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.hinted import Hinted
from tinyflux_pl.data.records.image_pairs import PairedImages
from tinyflux_pl.data.tasks.shapes.records import Shapes

SIZES = {"one": (40, 30), "two": (32, 48)}  # width, height


@pytest.fixture
def project(tmp_path):
    """Pictures with captions, and maps that are the pictures turned to grey."""
    draw = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        pixels = draw.integers(0, 256, (height, width, 3), np.uint8)
        for folder, kind, values in (
            ("pictures", "png", pixels),
            ("maps", "bmp", pixels.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{name}.{kind}")
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"picture {name}")
    return tmp_path


def folder(project, fit_mode="crop"):
    return Folder(project / "pictures", 16, fit_mode=fit_mode, split="all")


@pytest.mark.parametrize("fit_mode", ["crop", "pad"])
def test_a_map_file_is_fitted_like_its_image(project, fit_mode):
    records = Hinted(folder(project, fit_mode), str(project / "maps"))
    records.check()
    for record in records:
        assert record.hint.shape == record.image.shape == (16, 16, 3)
        grey = record.image.mean(2)
        assert np.abs(record.hint.mean(2) - grey).mean() < 3


def test_a_target_of_several_pairs_has_its_own_map_in_each(project):
    rows = [
        {"target": f"{target}.png", "reference": f"{other}.png", "caption": f"{other} to {target}"}
        for target, other in (("one", "two"), ("one", "one"), ("two", "one"))
    ]
    table = project / "pictures" / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    pairs = PairedImages(project / "pictures", 16, split="all")
    records = list(Hinted(pairs, str(project / "maps")))
    assert len(records) == 3
    for record in records:
        assert np.abs(record.hint.mean(2) - record.image.mean(2)).mean() < 3


def test_canny_is_computed_from_the_fitted_image():
    records = Hinted(Shapes(split="train", count=3, size=32, seed=0), "canny")
    assert records.prompts(2, records.prompt_splits[0]) and records.name == "shapes"
    for record in records:
        assert np.array_equal(record.hint, canny_map(record.image)) and record.hint.any()


def test_maps_enter_fingerprint_and_sample_keys(project):
    plain, hinted = folder(project), Hinted(folder(project), "canny")
    from_files = Hinted(folder(project), str(project / "maps"))
    prints = [str(records.fingerprint()) for records in (plain, hinted, from_files)]
    assert len(set(prints)) == 3
    before = from_files.sample_keys()
    Image.new("RGB", SIZES["two"]).save(project / "maps" / "two.bmp")
    after = Hinted(folder(project), str(project / "maps")).sample_keys()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_an_image_without_a_map_is_refused_by_name(project):
    (project / "maps" / "two.bmp").unlink()
    with pytest.raises(DataError, match=r"two\.png.*without a map"):
        Hinted(folder(project), str(project / "maps"))


def test_two_maps_of_one_name_are_refused(project):
    Image.new("RGB", SIZES["one"]).save(project / "maps" / "one.png")
    with pytest.raises(DataError, match="a second map"):
        Hinted(folder(project), str(project / "maps"))


def test_a_map_of_another_size_is_refused_before_encoding(project):
    Image.new("RGB", (8, 8)).save(project / "maps" / "one.bmp")
    with pytest.raises(DataError, match=r"8 x 8, its picture one\.png 40 x 30"):
        Hinted(folder(project), str(project / "maps")).check()


def test_synthetic_images_take_no_map_folder_and_a_missing_folder_is_refused(project):
    shapes = Shapes(split="train", count=3, size=32, seed=0)
    with pytest.raises(ConfigError, match="made by rule"):
        Hinted(shapes, str(project / "maps"))
    with pytest.raises(ConfigError, match="no such folder"):
        Hinted(folder(project), str(project / "nothing"))
