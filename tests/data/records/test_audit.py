"""The audit finds what is wrong, and nothing in a sound set."""

from PIL import Image

from tinyflux_pl.data.images.size_histogram import OriginalSizes
from tinyflux_pl.data.records.audit import audit
from tinyflux_pl.data.records.folder import Folder


def put(root, name, caption, colour="red", size=40):
    Image.new("RGB", (size, size), colour).save(root / f"{name}.png")
    (root / f"{name}.txt").write_text(caption)


def test_the_audit_counts_every_kind_of_fault(tmp_path):
    put(tmp_path, "a", "one", "red")
    put(tmp_path, "b", "two", "red")
    put(tmp_path, "c", "", "blue")
    put(tmp_path, "d", "small", "green", size=8)
    put(tmp_path, "e", "same", "white")
    put(tmp_path, "f", "same", "white")
    (tmp_path / "g.png").write_bytes(b"<html>")
    findings = audit(Folder(tmp_path, 32, split="all", allow_missing_captions=True, skip_bad=True))
    assert (findings.total, findings.readable, findings.sound) == (7, 6, False)
    assert findings.missing_captions == ["c.png"] and findings.tiny == ["d.png"]
    assert findings.duplicates == [
        ["a.png", "b.png"],
        ["e.png", "f.png"],
    ] and findings.contradictions == [["a.png", "b.png"]]
    assert len(findings.unreadable) == 1 and findings.unreadable[0].startswith("g.png: a web page")


def test_the_audit_detects_images_that_fail_only_when_decoded(tmp_path):
    put(tmp_path, "a", "one", "red")
    Image.effect_noise((64, 64), 90).save(tmp_path / "z.png")
    (tmp_path / "z.txt").write_text("torn")
    content = (tmp_path / "z.png").read_bytes()
    (tmp_path / "z.png").write_bytes(content[: len(content) // 2])
    findings = audit(Folder(tmp_path, 32, split="all"))
    assert (
        findings.total == 2
        and findings.readable == 1
        and "z.png: truncated" in findings.unreadable[0]
    )


def test_the_audit_counts_images_enlarged_by_their_fit_mode(tmp_path):
    put(tmp_path, "a", "large", "red", size=64)
    Image.new("RGB", (200, 8), "blue").save(tmp_path / "wide.png")
    (tmp_path / "wide.txt").write_text(
        "filling the frame takes it four times as high, fitting into it does not"
    )
    for mode, enlarged in (("crop", ["wide.png"]), ("pad", [])):
        records, sizes = Folder(tmp_path, 32, mode, split="all"), OriginalSizes((32, 32), mode)
        assert audit(records).tiny == enlarged
        for record in records:
            sizes.add(*record.attributes["original_size"])
        assert sum(line[4] for line in sizes.lines()) == len(enlarged)


def test_a_valid_dataset_has_no_findings(tmp_path):
    put(tmp_path, "a", "one", "red")
    put(tmp_path, "b", "two", "blue")
    assert audit(Folder(tmp_path, 32, split="all")).sound
