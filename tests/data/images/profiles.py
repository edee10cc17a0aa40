"""A wide-gamut RGB profile made of its primaries, and others of grey and ink, for tests."""

from __future__ import annotations

import struct

# XYZ of Display P3's primaries under D50
PRIMARIES = {"rXYZ": (0.51512, 0.2412, -0.00105), "gXYZ": (0.29198, 0.69225, 0.04189)}
PRIMARIES |= {"bXYZ": (0.1571, 0.06657, 0.78407)}
WHITE_POINT = (0.9642, 1.0, 0.8249)


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    named = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
    tags = {b"desc": named, b"wtpt": xyz(WHITE_POINT), **tags}
    table, body, begin = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", begin + len(body), len(data))
        body += data
    size = 128 + len(table + body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += b"".join(map(fixed, WHITE_POINT))
    return head.ljust(128, b"\0") + table + body


def wide_rgb() -> bytes:
    curves = {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", {k.encode(): xyz(v) for k, v in PRIMARIES.items()} | curves)


def linear_grey() -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(1.0)})
