"""Forty hostile images that must be refused, and unusual ones that are valid."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

RED, SIDE = (200, 30, 40), 48
LIMIT = 5792  # along a side: the largest square that may be decoded


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def red(width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (width, height), RED).convert(mode)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(
    width: int,
    height: int,
    depth: int = 8,
    *extra: bytes,
    rows: bytes = b"",
    crc: int | None = None,
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows), crc)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + body + chunk(b"IEND", b"")
    )


def gif_bomb() -> bytes:
    """Eighty bytes whose canvas Pillow allocates while it reads the header."""
    size = struct.pack("<HH", 13000, 13700)
    control = b"\x21\xf9\x04\x09\0\0\0\0"
    return (
        b"GIF89a"
        + size
        + b"\xf0\0\0"
        + bytes(6)
        + control
        + b",\0\0\0\0"
        + size
        + b"\0\x02\x02\x4c\x01\0;"
    )


def webp_bomb() -> bytes:
    canvas = struct.pack("<I", 16382)[:3] * 2
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp_bomb() -> bytes:
    content = bytearray(encoded(red(), "BMP"))
    content[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(content)


def jpeg_of(height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    content = bytearray(encoded(red(), "JPEG"))
    offset = content.index(b"\xff\xc0")
    content[offset + 5 : offset + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def animated(kind: str) -> bytes:
    blue = Image.new("RGB", (SIDE, SIDE), "blue")
    return encoded(red(), kind, save_all=True, append_images=[blue, blue], duration=40)


def with_text(size: int) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("notes", "x" * size)
    return encoded(red(), pnginfo=notes)


def turned(width: int = SIDE, height: int = SIDE, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(
        red(width, height), kind, exif=exif, **({"compress_level": 1} if kind == "PNG" else {})
    )


def sixteen_bit_rgb() -> bytes:
    row = b"\0" + struct.pack(">HHH", *(c << 8 for c in RED)) * SIDE
    return png(SIDE, SIDE, 16, rows=row * SIDE)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.png", encoded(red()))
    return buffer.getvalue()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


RED_ROWS = (b"\0" + bytes(RED) * SIDE) * SIDE
TEXT_BOMB = zlib.compress(bytes(2**27), 9)  # 128 MiB in 130 kB
REFUSED: dict[str, bytes] = {
    "empty.png": b"",
    "page.jpg": b"\n<!DOCTYPE html><html>404</html>",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "lfs.png": b"version https://git-lfs.github.com/spec/v1\n",
    # a name that would clear a terminal and turn its text around
    "\x1b[2J\u202ewords.png": b"hello",
    "zeros.bmp": bytes(4096),
    "bomb.png": png(65535, 65535),
    "bomb_slight.png": png(LIMIT + 1, LIMIT + 1, rows=b"\0"),
    "bomb_gif.png": gif_bomb(),
    "bomb.webp": webp_bomb(),
    "bomb.bmp": bmp_bomb(),
    "bomb.jpg": jpeg_of(65500, 65500),
    "no_width.png": png(0, 32),
    "no_height.jpg": jpeg_of(0, SIDE),
    "cut.png": cut(encoded(noise())),
    "cut.jpg": cut(encoded(noise(), "JPEG")),
    "cut.webp": cut(encoded(noise(), "WEBP")),
    "cut.bmp": cut(encoded(noise(), "BMP")),
    "checksum.png": png(SIDE, SIDE, 8, rows=bytes(SIDE * (SIDE * 3 + 1)), crc=1),
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(evil) run\n",
    "float.png": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    "pickle.png": pickle.dumps({"a": 1}),
    "archive.jpg": archive(),
}
HEADER_IS_VALID = {"cut.png", "cut.jpg", "cut.bmp", "checksum.png"}  # their headers are sound
SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe.png": lambda path: os.mkfifo(path),
    "socket.png": lambda path: bind(path),
    "dangling.png": lambda path: path.symlink_to("nowhere.png"),
    "loop.png": lambda path: path.symlink_to(path.name),
    "folder.png": lambda path: path.mkdir(),
}
KEPT: dict[str, bytes] = {
    "bomb_text.png": png(SIDE, SIDE, 8, chunk(b"zTXt", b"a\0\0" + TEXT_BOMB), rows=RED_ROWS),
    "bomb_profile.png": png(SIDE, SIDE, 8, chunk(b"iCCP", b"a\0\0" + TEXT_BOMB), rows=RED_ROWS),
    "bomb_texts.png": png(
        SIDE, SIDE, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20)))] * 80, rows=RED_ROWS
    ),
    "cmyk.jpg": encoded(red(mode="CMYK"), "JPEG"),
    "deep.png": sixteen_bit_rgb(),
    "moving_gif.png": animated("GIF"),
    "moving.webp": animated("WEBP"),
    "moving.png": animated("PNG"),
    "turned.jpg": turned(),
    "palette.png": encoded(red().quantize(4), transparency=3),
    "profile.jpg": encoded(red(), "JPEG", icc_profile=bytes(2**20)),
    "\x1b[31mname\nof\u202etwo.png": with_text(900_000),
}
# at the limit itself: whole, and as costly as a picture may be
LARGEST: dict[str, Callable[[], bytes]] = {
    "turned.png": lambda: turned(LIMIT, LIMIT, "PNG"),
    "clear.png": lambda: encoded(Image.new("RGBA", (LIMIT, LIMIT), (*RED, 255)), compress_level=1),
    "scans.jpg": lambda: encoded(red(LIMIT, LIMIT), "JPEG", progressive=True),
    "large.webp": lambda: encoded(red(LIMIT // 2, LIMIT), "WEBP", method=0, quality=50),
    "cmyk.jpg": lambda: encoded(red(LIMIT, LIMIT, "CMYK"), "JPEG"),
    "clear.tif": lambda: encoded(red(LIMIT, LIMIT, "RGBA"), "TIFF", compression="tiff_lzw"),
    "turned.tif": lambda: encoded(
        red(LIMIT // 2, LIMIT, "RGBA"), "TIFF", compression="tiff_lzw", tiffinfo={274: 6}
    ),
    "grey.png": lambda: encoded(Image.new("I;16", (LIMIT, LIMIT), 200 << 8), compress_level=1),
}
assert len(REFUSED) + len(SPECIAL) + len(KEPT) == 40


def bind(path: Path) -> None:
    """A socket under a name; the path of a socket may be no longer than about 100 bytes."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def write(folder: Path) -> None:
    """Write all forty with captions, and three ordinary images."""
    folder.mkdir(parents=True)
    for name, content in {
        **REFUSED,
        **KEPT,
        **{f"good_{i}.png": encoded(red()) for i in range(3)},
    }.items():
        (folder / name).write_bytes(content)
    for name, make in SPECIAL.items():
        make(folder / name)
    for name in (*REFUSED, *SPECIAL, *KEPT, *(f"good_{i}.png" for i in range(3))):
        (folder / name).with_suffix(".txt").write_text("a red square")
