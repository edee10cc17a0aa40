"""Width and height of a JPEG XL file from its first bytes: its decoder has no header-only mode.

The code of sizes is that of ISO/IEC 18181-1, annex D.2 (SizeHeader); bits count from the lowest.
"""

from __future__ import annotations

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height, from 1 on


def size_of(content: bytes) -> tuple[int, int] | None:
    """(width, height); None for what is no JPEG XL, or ends before its size."""
    stream = _codestream(content)
    if not stream.startswith(CODESTREAM) or len(stream) < 12:
        return None
    bits = _Bits(int.from_bytes(stream[2:18], "little"))
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, small), height
    across, down = RATIOS[ratio - 1]
    return height * across // down, height


class _Bits:
    """Bits of a number, from the lowest on."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        """The next `count` of them."""
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value


def _side(bits: _Bits, small: int) -> int:
    if small:
        return (bits.take(5) + 1) * 8
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1


def _codestream(content: bytes) -> bytes:
    """The first bytes of the picture itself, bare or in boxes."""
    if not content.startswith(CONTAINER):
        return content[:32]
    position = len(CONTAINER)
    while position + 16 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind, head = content[position + 4 : position + 8], 8
        if length == 1:
            length, head = int.from_bytes(content[position + 8 : position + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            begin = position + head + (4 if kind == b"jxlp" else 0)
            return content[begin : begin + 32]
        if length < head:
            break
        position += length
    return b""
