"""A caption, mask or map that is called as its picture but for composition or case is named."""

import pytest
from PIL import Image

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.hinted import Hinted

COMPOSED, DECOMPOSED = "caf\xe9", "cafe\u0301"
BOTH = [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), ("a", "A")]


def put(path, colour="red"):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path)


@pytest.mark.parametrize(("picture", "other"), BOTH)
def test_a_caption_of_another_spelling_is_a_finding_that_shows_both(picture, other, tmp_path):
    put(tmp_path / f"{picture}.png")
    put(tmp_path / "plain.png", "blue")
    (tmp_path / "plain.txt").write_text("blue")
    (tmp_path / f"{other}.txt").write_text("red")
    records = Folder(tmp_path, 8, split="all", allow_missing_captions=True)
    kinds = {finding.kind: finding for finding in records.findings}
    assert kinds["spelled otherwise"].names == (f"{other!a} for {picture!a}",)
    (tmp_path / f"{other}.txt").unlink()
    (tmp_path / "alone.txt").write_text("red")
    records = Folder(tmp_path, 8, split="all", allow_missing_captions=True)
    kinds = {finding.kind for finding in records.findings}
    assert "caption alone" in kinds and "spelled otherwise" not in kinds


@pytest.mark.parametrize(("picture", "other"), BOTH)
def test_masks_and_maps_of_another_spelling_are_refused_with_both(picture, other, tmp_path):
    put(tmp_path / "pictures" / f"{picture}.png")
    (tmp_path / "pictures" / f"{picture}.txt").write_text("red")
    put(tmp_path / "maps" / f"{other}.png")
    records = Folder(tmp_path / "pictures", 8, split="all")
    with pytest.raises(DataError, match="without a map") as caught:
        Hinted(records, str(tmp_path / "maps"))
    assert f"{picture!a} for {other!a}" in caught.value.cure
    put(tmp_path / "pictures" / f"{other}.mask.png")
    with pytest.raises(DataError, match="masks that no image has") as caught:
        Folder(tmp_path / "pictures", 8, split="all")
    assert f"{other + '.mask.png'!a} for {picture + '.mask.png'!a}" in caught.value.cure
