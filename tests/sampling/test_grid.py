"""Sheets of captioned pictures: every script is drawn, every line fits, memory is bounded."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tinyflux_pl.sampling import caption_text, fonts
from tinyflux_pl.sampling.grid import LARGEST, Grid, captioned_grid

SENTENCES = {
    "Latin": "một vòng tròn đỏ, čtverec, façade",
    "Greek": "κόκκινος κύκλος",
    "Cyrillic": "красный круг слева вверху",
    "Chinese": "一只红色的圆形在左上角",
    "Japanese": "赤い円とカタカナ",
    "Korean": "빨간 원",
    "Arabic": "دائرة حمراء كبيرة",
    "Hebrew": "עיגול אדום",
    "Devanagari": "लाल वृत्त ऊपर",
    "Bengali": "লাল বৃত্ত",
    "Tamil": "சிவப்பு வட்டம்",
    "Thai": "วงกลมสีแดง",
    "Georgian": "წითელი წრე",
    "Armenian": "կարմիր շրջան",
    "Ethiopic": "ቀይ ክብ",
    "Khmer": "រង្វង់ក្រហម",
    "emoji": "🔴 ★ → ∑",
}


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_captions_of_every_script_are_rendered_with_their_glyphs(sentence):
    parts = fonts.runs(sentence, 12)
    assert "".join(text for text, _ in parts) == sentence and "U+" not in sentence
    assert np.asarray(written(sentence)).min() < 128, "ink"
    letters = next(text.strip() for text, _ in parts if text.strip())
    face = next(face for text, face in parts if text.strip())
    assert bytes(face.getmask(letters[0])) != bytes(face.getmask(fonts.NO_CHARACTER)), (
        "not the box of a gap"
    )


def test_a_character_without_glyph_is_written_as_its_code_point():
    assert "".join(text for text, _ in fonts.runs("a \U000f1234 b", 12)) == "a U+F1234 b"


def test_without_extra_fonts_characters_are_written_as_code_points(monkeypatch):
    monkeypatch.setattr(fonts, "_files", lambda package: [])
    fonts.faces.cache_clear()
    try:
        assert "".join(text for text, _ in fonts.runs("red 猫", 12)) == "red U+732B"
    finally:
        fonts.faces.cache_clear()


@pytest.mark.parametrize(
    "text", ["a red circle " * 40, "红色的圆形" * 60, "x" * 2000, "", "one", "\x1b[31mred"]
)
def test_caption_lines_fit_and_truncation_is_marked(text):
    lines = caption_text.lines(text, 12, 128, 3)
    assert len(lines) <= 3 and all(caption_text.width(line, 12) <= 128 for line in lines)
    assert all("\x1b" not in line for line in lines)
    is_complete = "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\x1b", r"\x1b")
    assert is_complete or lines[-1].endswith("…")


def test_spaces_are_kept_between_words_of_different_directions():
    """Within a right-to-left run the space would change sides and two words would touch."""
    parts = [text for text, _ in fonts.runs("a دائرة b", 12)]
    assert parts == ["a", " ", "دائرة", " ", "b"]


def test_a_grid_has_a_maximum_number_of_images():
    grid = Grid(most=3)
    for i in range(10):
        grid.add(Image.new("RGB", (1024, 512)), str(i))
    assert grid.captions == ["0", "1", "2"] and {cell.size for cell in grid.cells} == {
        (LARGEST, LARGEST // 2)
    }
    sheet = grid.sheet()
    assert sheet.width < 3 * (LARGEST + 20)


def test_small_images_keep_their_pixels_in_a_grid():
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    sheet = np.asarray(captioned_grid(image, ["a"]))
    exact = image[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    assert (sheet[8 : 8 + 128, 8 : 8 + 128] == np.kron(exact, np.ones((16, 16, 1), np.uint8)))[
        :-1, :-1
    ].all()


def written(text):
    sheet = Image.new("L", (400, 30), 255)
    caption_text.write(ImageDraw.Draw(sheet), (0, 0), text, 12, 0)
    return sheet
