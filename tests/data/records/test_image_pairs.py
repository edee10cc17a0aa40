import json

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError, UntrustedFile
from tinyflux_pl.data.records.image_pair_rows import read_rows
from tinyflux_pl.data.records.image_pairs import PairedImages


def picture(path, seed=0, size=(16, 12), mode="RGB"):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def mask(path, box, size=(16, 12)):
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def named(tmp_path):
    for i in range(3):
        picture(tmp_path / f"p{i}_target.png", i)
        picture(tmp_path / f"p{i}_ref1.png", 10 + i)
        picture(tmp_path / f"p{i}_ref2.jpg", 20 + i)
        (tmp_path / f"p{i}_caption.txt").write_text(f"make it {i}\n")
    return tmp_path


def listed(root, *rows):
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root


def test_pairs_are_formed_by_file_name(named):
    records = PairedImages(named, (12, 16), (8, 8), split="all")
    record = records[1]
    assert len(records) == 3 and record.caption == "make it 1" and record.source == "p1_target.png"
    assert (
        record.image.shape == (12, 16, 3)
        and [r.shape for r in record.references] == [(8, 8, 3)] * 2
    )
    assert np.array_equal(record.image, np.asarray(Image.open(named / "p1_target.png")))
    assert record.inpaint_mask is None and record.sample_id != records[0].sample_id


def test_pairs_with_an_inpaint_mask_are_read_from_a_table(tmp_path):
    picture(tmp_path / "a.png")
    mask(tmp_path / "m.png", (4, 2, 9, 7))
    root = listed(tmp_path, {"target": "a.png", "mask": "m.png", "caption": "a cat"})
    record = PairedImages(root, (12, 16), split="all")[0]
    assert record.references == () and record.inpaint_mask.dtype == bool
    assert (
        np.argwhere(record.inpaint_mask).min(0).tolist() == [2, 4]
        and record.inpaint_mask.sum() == 25
    )


def test_a_mask_of_another_size_is_refused_by_name(tmp_path):
    picture(tmp_path / "a.png")
    mask(tmp_path / "m.png", (4, 2, 9, 7), size=(32, 12))
    root = listed(tmp_path, {"target": "a.png", "mask": "m.png", "caption": "a cat"})
    with pytest.raises(ImageError, match="different sizes, 32 x 12 and 16 x 12") as error:
        PairedImages(root, 8, split="all").check()
    assert error.value.where.endswith("m.png")


def test_numbered_references_are_sorted_by_number(tmp_path):
    picture(tmp_path / "a_target.png")
    for number in (10, 2, 1):
        picture(tmp_path / f"a_ref{number}.png", number)
    assert read_rows(tmp_path)[0][0].references == ("a_ref1.png", "a_ref2.png", "a_ref10.png")


def test_the_original_size_of_a_target_is_recorded(named):
    attributes = PairedImages(named, 8, split="all")[0].attributes
    assert attributes == {"original_size": [12, 16], "size_ids": [12, 16, 0, 1, 8, 8]}


def test_a_table_may_be_a_json_list_with_one_or_several_references(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    rows = [
        {"target": "a.png", "reference": "b.png", "caption": "x"},
        {"target": "b.png", "reference": ["c.png"]},
    ]
    (tmp_path / "metadata.json").write_text(json.dumps(rows))
    assert [row.references for row in read_rows(tmp_path)[0]] == [("b.png",), ("c.png",)]


def test_splits_are_disjoint_by_target_content(named):
    train, validation = (
        PairedImages(named, 8, split=s, validation_fraction=0.4) for s in ("train", "validation")
    )
    assert len(train) + len(validation) == 3 and len(validation) >= 1
    assert not {r.target for r in train.rows} & {r.target for r in validation.rows}


def test_the_fingerprint_depends_on_content_and_size_and_not_on_paths(named, tmp_path_factory):
    import shutil

    copy = shutil.copytree(named, tmp_path_factory.mktemp("copy") / "pairs")
    fingerprint = PairedImages(named, 8, split="all").fingerprint()
    assert fingerprint == PairedImages(copy, 8, split="all").fingerprint()
    assert fingerprint != PairedImages(named, 8, 16, split="all").fingerprint()
    picture(copy / "p0_ref1.png", 99)
    assert fingerprint != PairedImages(copy, 8, split="all").fingerprint()


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        (
            [{"target": "a.png", "reference": "gone.png", "caption": "x"}],
            DataError,
            "gone.png is not there",
        ),
        ([{"target": "a.png", "caption": "x"}], DataError, "no reference and no mask: a.png"),
        (
            [
                {"target": "a.png", "reference": "b.png", "caption": "x"},
                {"target": "b.png", "reference": ["a.png", "a.png"], "caption": "x"},
            ],
            DataError,
            "different kinds",
        ),
        ([{"target": "a.png", "reference": "b.png"}], CaptionError, "without a caption"),
        ([{"reference": "b.png", "caption": "x"}], CaptionError, "line 1"),
        ([{"target": "a.png", "reference": 3, "caption": "x"}], CaptionError, "reference is 3"),
        (
            [{"target": "../a.png", "reference": "b.png", "caption": "x"}],
            UntrustedFile,
            "leaves the dataset",
        ),
        ([], DataError, "no pairs"),
    ],
)
def test_folders_without_pairs_are_refused(tmp_path, rows, error, says):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 1)
    with pytest.raises(error, match=says):
        PairedImages(listed(tmp_path, *rows), 8, split="all").require_one_kind()


def test_pairs_of_mixed_kinds_are_refused(tmp_path):
    for name in ("a_target.png", "a_ref.png", "b_target.png", "b_ref.png", "b_ref2.png"):
        picture(tmp_path / name)
    records = PairedImages(tmp_path, 8, split="all", allow_missing_captions=True)
    for read in (records.check, lambda: records[0], records.require_one_kind):
        with pytest.raises(DataError, match="different kinds"):
            read()


def test_a_damaged_picture_and_wrong_settings_are_named(named):
    file = named / "p2_ref2.jpg"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"p2_ref2\.jpg"):
        PairedImages(named, 8, split="all").check()
    with pytest.raises(ConfigError, match="split=some"):
        PairedImages(named, 8, split="some")


def unmatched(root):
    findings = PairedImages(root, 8, split="all", allow_missing_captions=True).findings
    return {f.kind: set(f.names) for f in findings}


def test_pair_names_match_in_any_case_and_with_any_suffix(tmp_path):
    for name in ("a_Target.png", "a_REF.gif", "sub/b_target.tiff", "sub/b_Ref.jpe"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), "red").save(
            tmp_path / name, format="JPEG" if "jpe" in name else None
        )
    (tmp_path / "a_Caption.TXT").write_text("cat")
    records = PairedImages(tmp_path, 8, split="all", allow_missing_captions=True)
    assert [(r.target, r.references, r.caption) for r in records.rows] == [
        ("a_Target.png", ("a_REF.gif",), "cat"),
        ("sub/b_target.tiff", ("sub/b_Ref.jpe",), ""),
    ]
    assert not records.findings


def test_unmatched_files_are_named(tmp_path):
    pair = ("a_target.png", "a_ref.png")
    unmatched_files = (
        "b_ref.png",
        "A_ref.png",
        "c_mask.png",
        "d.png",
        "e_targets.png",
        "a_mask.mask.png",
    )
    for name in (*pair, *unmatched_files):
        picture(tmp_path / name)
    for name in ("a_caption.txt", "b_caption.txt", "a.txt", "a_ref3.svg", "captions.csv", "notes"):
        (tmp_path / name).write_text("cat")
    assert unmatched(tmp_path) == {
        "in no pair": set(unmatched_files),
        "caption alone": {"b_caption.txt", "a.txt"},
        "kind not read": {"a_ref3.svg"},
        "table not read": {"captions.csv"},
        "not used": {"notes"},
    }


def test_images_missing_from_a_table_are_named(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    listed(tmp_path, {"target": "a.png", "reference": "b.png", "caption": "x"})
    assert unmatched(tmp_path) == {"in no pair": {"c.png"}}


def test_inpaint_masks_that_are_all_empty_are_refused(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}_target.png")
        Image.new("L", (16, 12)).save(tmp_path / f"{name}_mask.png")
    records = PairedImages(tmp_path, 8, split="all", allow_missing_captions=True)
    with pytest.raises(DataError, match="in none of 2 masks"):
        records.check()
    Image.new("L", (16, 12), 255).save(tmp_path / "b_mask.png")
    PairedImages(tmp_path, 8, split="all", allow_missing_captions=True).check()


def test_captions_of_pairs_follow_the_rules_and_rates_their_folders(named):
    rules = {"trigger": "sks", "several": True, "shuffles": 1, "keep_tags": 0}
    (named / "p1_caption.txt").write_text("make it red, old\nnight\n")
    plain = PairedImages(named, (12, 16), split="all")
    records = PairedImages(named, (12, 16), split="all", captions=rules)
    assert records[1].captions[:2] == ("sks, make it red, old", "sks night")
    assert records.variants == len(records[1].captions) > 1 == plain.variants
    assert records.fingerprint() != plain.fingerprint()
    assert "p1_ref1.png" in records.picture_overrides("sks night")[0]
    with pytest.raises(ConfigError, match="no picture in photos"):
        PairedImages(named, (12, 16), split="all", folders={"photos": {"repeats": 2}})
