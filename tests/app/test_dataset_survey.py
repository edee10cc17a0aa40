"""The survey of a dataset is stored with its cache, for any file names and numbers."""

import os
from types import SimpleNamespace

from PIL import Image

from tinyflux_pl.app.preflight import dataset_survey, tables
from tinyflux_pl.app.preflight.dataset_survey import AUDIT_FILE, Survey
from tinyflux_pl.core import files
from tinyflux_pl.data.images.size_histogram import OriginalSizes
from tinyflux_pl.data.records.audit import Audit
from tinyflux_pl.data.records.folder import Folder


def test_file_names_that_are_not_utf_8_are_stored(tmp_path):
    root, cache = tmp_path / "photos", tmp_path / "cache"
    root.mkdir(), cache.mkdir()
    for stem in (b"caf\xe9", b"plain"):
        Image.new("RGB", (8, 8), "red").save(root / "x.png")
        os.rename(root / "x.png", os.fsencode(root) + b"/" + stem + b".png")
    records = Folder(root, 16, split="all", allow_missing_captions=True)
    first_survey = dataset_survey.survey("folder", "train", records, (16, 16), cache)
    assert len(first_survey.audit.tiny) == 2 and len(first_survey.audit.duplicates[0]) == 2
    dataset_survey.save_survey(first_survey, records, cache)
    again = dataset_survey.survey("folder", "train", records, (16, 16), cache)
    assert again.stored and again.audit == first_survey.audit


def test_a_survey_beyond_the_size_limit_is_not_stored(tmp_path, monkeypatch):
    """Doctor would call it damaged."""
    records = SimpleNamespace(fingerprint=lambda: {"name": "many"})
    names = [f"folder/picture_{i:07d}.png" for i in range(100)]
    oversized = Survey("many", "train", Audit(100, 100, tiny=names), OriginalSizes((64, 64)))
    monkeypatch.setattr(files, "JSON_LIMIT", 1000)
    dataset_survey.save_survey(oversized, records, tmp_path)
    assert not (tmp_path / AUDIT_FILE).exists()
    monkeypatch.setattr(files, "JSON_LIMIT", 2**20)
    dataset_survey.save_survey(oversized, records, tmp_path)
    assert files.read_sealed(tmp_path / AUDIT_FILE)["audit"]["tiny"] == names


def test_one_record_is_named_in_the_singular():
    survey = Survey("folder", "validation", Audit(1, 1), OriginalSizes((64, 64)))
    table = tables.dataset([survey], {"folder": "crop"}, {})
    assert table.rows[0] == ("folder/validation", "1 record, nothing wrong")
