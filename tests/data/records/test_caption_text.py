"""Captions are UTF-8 text of the very file that was judged, or the encoding is named."""

import os

import pytest
from PIL import Image

from tinyflux_pl.core import regular_file
from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.caption_text import decoded, text_of
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.inference.prompts import read_prompts

TEXT = "un café près de la mer, 3 chats"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_byte_order_mark(encoding):
    assert decoded(TEXT.encode(encoding), "a.txt") == TEXT
    assert decoded(b"", "a.txt") == ""


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE without a byte order mark"),
        ("utf-16-be", "UTF-16BE without a byte order mark"),
        ("utf-32", "UTF-32"),
        ("latin-1", "older encoding"),
        ("cp1252", "older encoding"),
    ],
)
def test_another_encoding_is_refused_with_the_conversion_command(encoding, named):
    with pytest.raises(CaptionError, match=named) as caught:
        decoded(TEXT.encode(encoding), "a.txt")
    assert "iconv -f" in caught.value.cure and len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("encoding", ["gb18030", "shift_jis", "cp1251"])
def test_other_scripts_in_older_encodings_are_refused(encoding):
    text = {"gb18030": "一只红色的猫", "shift_jis": "赤い猫がいます", "cp1251": "красный кот"}[
        encoding
    ]
    with pytest.raises(CaptionError, match="older encoding"):
        decoded(text.encode(encoding), "a.txt")


def test_a_nul_character_is_refused_in_every_caption_source(tmp_path):
    with pytest.raises(CaptionError, match="NUL"):
        decoded(b"a red\0 circle with quite some words around it", "a.txt")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a\\u0000b"}')
    with pytest.raises(CaptionError, match="NUL"):
        Folder(tmp_path, 8, split="all")


def test_a_file_replaced_by_a_link_is_not_followed(tmp_path, monkeypatch):
    """Between the look at its path and its opening."""
    secret, caption = tmp_path / "secret", tmp_path / "set" / "a.txt"
    caption.parent.mkdir()
    secret.write_text("a key")
    caption.symlink_to(secret)
    with pytest.raises(CaptionError, match="cannot be read"):
        text_of(caption, 1000)
    caption.unlink()
    caption.write_text("a cat")
    usual = os.open

    def swapped(path, *flags):
        handle = usual(path, *flags)
        caption.unlink()
        caption.symlink_to(secret)
        return handle

    monkeypatch.setattr(regular_file.os, "open", swapped)
    with pytest.raises(CaptionError, match="swapped"):
        text_of(caption, 1000)


def test_a_folder_replaced_by_a_link_is_not_followed(tmp_path):
    elsewhere, inside = tmp_path / "elsewhere", tmp_path / "set" / "sub"
    elsewhere.mkdir(), inside.parent.mkdir()
    (elsewhere / "a.txt").write_text("a key")
    inside.symlink_to(elsewhere)
    with pytest.raises(CaptionError, match="swapped"):
        text_of(inside / "a.txt", 1000)


def test_pipes_do_not_block_and_long_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(CaptionError, match="not a regular file"):
        text_of(tmp_path / "a.txt", 1000)
    (tmp_path / "b.txt").write_text("x" * 1001)
    with pytest.raises(CaptionError, match="1,001 bytes of captions, more than 1,000"):
        text_of(tmp_path / "b.txt", 1000)


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (b"\xef\xbb\xbfa red circle\r\n", ["a red circle"]),
        ("one\u2028prompt\n\n two \n".encode(), ["one\u2028prompt", "two"]),
        (b"a\rb\x0bc\n", ["a", "b\x0bc"]),
    ],
)
def test_a_prompt_file_is_read_line_by_line_like_captions(tmp_path, content, prompts):
    (tmp_path / "p.txt").write_bytes(content)
    (tmp_path / "link").symlink_to("p.txt")
    assert (
        read_prompts(None, tmp_path / "p.txt") == read_prompts(None, tmp_path / "link") == prompts
    )


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_a_file_of_prompts_in_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "p.txt").write_bytes(f"{TEXT}\n".encode(encoding))
    with pytest.raises(CaptionError):
        read_prompts(None, tmp_path / "p.txt")
