"""A PNG without its text chunks, which do not affect the pixels and may be very long."""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = (b"tEXt", b"zTXt", b"iTXt")
ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")  # may turn it
SHORT = 2**16  # bytes of a text that may turn the picture
MAX_PROFILE = 2**22  # bytes of a colour profile; those of printers have up to three million


def without_text(content: bytes) -> tuple[bytes, bytes | None]:
    """The file without text and colour profile, and the profile, unpacked; other formats as is.

    A profile that is damaged or longer than MAX_PROFILE counts as none. Where chunks do not follow
    each other as they should, the rest is left for the decoder to judge.
    """
    if not content.startswith(SIGNATURE):
        return content, None
    view = memoryview(content)
    chunks: list[memoryview] = []
    profile = None
    start = position = len(SIGNATURE)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        kind, body = bytes(view[position + 4 : position + 8]), view[position + 8 : end - 4]
        if end > len(content) or kind == b"IEND":
            break
        if kind == b"iCCP":
            profile = _unpacked(bytes(body), MAX_PROFILE)
        if kind == b"iCCP" or (kind in TEXT and not _may_turn(kind, body)):
            chunks.append(view[start:position])
            start = end
        position = end
    if not chunks:
        return content, None
    return b"".join([SIGNATURE, *chunks, view[start:]]), profile


def header(content: bytes) -> bytes:
    """The part of a PNG before its pixels, and the later chunks that may contain an orientation.

    It can be opened, and not decoded. A file without such chunks, or of another format, as it is.
    """
    if not content.startswith(SIGNATURE):
        return content
    view = memoryview(content)
    late: list[memoryview] = []
    pixels = 0
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        kind, body = bytes(view[position + 4 : position + 8]), view[position + 8 : end - 4]
        if end > len(content) or kind == b"IEND" or (pixels and kind == b"fcTL"):
            break  # behind the first frame of an animation a decoder reads nothing
        if kind == b"IDAT":
            pixels = pixels or position
        elif pixels and (kind == b"eXIf" or (kind in TEXT and _may_turn(kind, body))):
            late.append(view[position:end])
        position = end
    if not late:
        return content
    return b"".join([view[:pixels], *late, view[pixels : pixels + 8]])


def bit_depth(content: bytes) -> int:
    """Bits of one value of a PNG; 8 for other formats."""
    return content[24] if content.startswith(SIGNATURE) and len(content) > 24 else 8


def _may_turn(kind: bytes, body: memoryview) -> bool:
    """True if a text chunk may contain an orientation, and is short enough to be read."""
    text = bytes(body[: SHORT + 1])
    keyword, _, rest = text.partition(b"\0")
    if keyword not in ORIENTED or len(text) > SHORT:
        return False
    if kind == b"zTXt":
        return _unpacked(text, SHORT) is not None
    return kind == b"tEXt" or rest[:1] == b"\0"  # of an iTXt: not packed


def _unpacked(body: bytes, most: int) -> bytes | None:
    """The data compressed after a name, a zero and the method.

    None if damaged or longer than `most`.
    """
    packed = body.partition(b"\0")[2][1:]
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, most)
    except zlib.error:
        return None
    return data if unpacking.eof and data else None
