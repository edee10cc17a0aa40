"""The size of a JPEG XL picture from the first bits of its header."""

import struct

import pytest

from tests.data.images.test_formats import encoded, picture
from tinyflux_pl.data.images import jxl_header

SMALL_SQUARE = [(1, 1), (5, 3), (3, 1)]  # (3 + 1) * 8 high, as wide as high
WIDTH_HEADER = [(1, 0), (2, 0), (9, 43), (3, 0), (2, 2), (18, 1024)]
BY_RATIO = [(1, 0), (2, 1), (13, 1023), (3, 6)]  # 1024 high, 5 to 4


@pytest.mark.parametrize(
    ("fields", "size"),
    [(SMALL_SQUARE, (32, 32)), (WIDTH_HEADER, (1025, 44)), (BY_RATIO, (1280, 1024))],
)
def test_the_size_of_a_jpeg_xl_is_read_from_its_first_bits(fields, size):
    value, shift = 0, 0
    for count, field in fields:
        value, shift = value | field << shift, shift + count
    stream = b"\xff\x0a" + value.to_bytes(16, "little")
    assert jxl_header.size_of(stream) == size
    box = struct.pack(">I4s", 8 + len(stream), b"jxlc") + stream
    assert jxl_header.size_of(jxl_header.CONTAINER + struct.pack(">I4s", 8, b"ftyp") + box) == size
    assert jxl_header.size_of(encoded(picture())) is None
