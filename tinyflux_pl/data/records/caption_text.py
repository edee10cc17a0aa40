"""UTF-8 text of caption files; errors name the likely encoding of other text."""

from __future__ import annotations

import codecs
import errno
from pathlib import Path

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.core.regular_file import read_regular

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
OLDER = "UTF-8 text; an older encoding, such as Windows-1252, GB18030 or Shift JIS"


def text_of(path: str | Path, most: int) -> str:
    """The UTF-8 text of a file of at most `most` bytes, without a byte order mark; CaptionError."""
    try:
        content = read_regular(path, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            what = str(error.strerror).replace(" bytes,", " bytes of captions,")
            raise CaptionError(what, where=str(path), cure="shorten it") from error
        cure = "make it a readable file"
        raise CaptionError(
            f"cannot be read: {error.strerror}", where=str(path), cure=cure
        ) from error
    return decoded(content, str(path))


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended by LF, CR LF or CR; other separators of Unicode stay in them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def decoded(content: bytes, where: str) -> str:
    """The text of these bytes.

    CaptionError naming the encoding where it is not UTF-8, and for NUL.
    """
    name = encoding_of(content)
    if name:
        encoding = name.split(";")[0].split(" ")[0]
        is_known = encoding.startswith("UTF-") and encoding != "UTF-8"
        source = encoding if is_known else "THAT_ENCODING"
        cure = f"save it as UTF-8, for example: iconv -f {source} -t UTF-8 FILE > NEW"
        what = f"not {name}" if name == OLDER else f"{name}, not UTF-8"
        raise CaptionError(what, where=where, cure=cure)
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise CaptionError(
            "it contains a NUL character", where=where, cure="take it out, and save it as UTF-8"
        )
    return text


def encoding_of(content: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8; "" for UTF-8."""
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return name
    zeros = [content[k::2].count(0) for k in (0, 1)]
    if max(zeros) > len(content) // 8 and min(zeros) <= max(zeros) // 8:
        return f"UTF-16{'BE' if zeros[0] > zeros[1] else 'LE'} without a byte order mark"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return OLDER
    return ""
