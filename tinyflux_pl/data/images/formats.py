"""Picture formats: supported, supported with an extra, and unsupported."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from PIL import features

EXTRA = 'pip install -e ".[formats]"'
BUILT_IN = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),  # without the header of a BMP file; with it, a .dib is read as BMP
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
OPTIONAL = {"HEIF": (".heic", ".heif", ".heics", ".hif"), "JXL": (".jxl",)}
PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}
# suffixes of pictures that are not read
UNREAD = (
    *(".svg", ".svgz", ".psd", ".psb", ".xcf", ".kra", ".ico", ".cur", ".icns", ".tga", ".pcx"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".jxr", ".wdp", ".exr", ".hdr", ".dds", ".qoi"),
    *(
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".pam",
        ".eps",
        ".ai",
        ".wmf",
        ".emf",
        ".xbm",
        ".xpm",
    ),
    *(
        ".dng",
        ".cr2",
        ".cr3",
        ".crw",
        ".nef",
        ".nrw",
        ".arw",
        ".srf",
        ".sr2",
        ".raf",
        ".orf",
        ".rw2",
    ),
    *(
        ".pef",
        ".raw",
        ".rwl",
        ".srw",
        ".x3f",
        ".3fr",
        ".iiq",
        ".fits",
        ".dcm",
        ".nii",
        ".mpo",
        ".bpg",
    ),
)
# the kind of an ISO media file, at its byte 4, that a HEIC picture or a JPEG XL starts with
STARTS = {
    "HEIF": tuple(
        b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
    ),
    "JXL": (b"JXL ",),
}


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the supported formats.

    Those of the extra are registered with Pillow.
    """
    names = [name for name in BUILT_IN if name != "AVIF" or features.check("avif")]
    for name, package in PACKAGES.items():
        if find_spec(package) is not None:
            names.append(name)
    if "HEIF" in names:
        import_module("pillow_heif").register_heif_opener()
    if "JXL" in names:
        import_module("pillow_jxl")
    return tuple(names)


@cache
def suffixes() -> tuple[str, ...]:
    """Suffixes, in lower case, of the files that are read as pictures."""
    all_formats = BUILT_IN | OPTIONAL
    return tuple(suffix for name in formats() for suffix in all_formats[name])


def is_unread_picture(name: str) -> bool:
    """True for a file name with the suffix of an unsupported picture format."""
    suffix = Path(name).suffix.lower()
    every = (*UNREAD, *(each for kind in (BUILT_IN | OPTIONAL).values() for each in kind))
    return suffix in every and suffix not in suffixes()


def missing_extra(start: bytes) -> str:
    """The format of a file's first bytes, if it needs the extra and that is not installed."""
    for name, starts in STARTS.items():
        bare = name == "JXL" and start[:2] == b"\xff\x0a"
        if name not in formats() and (start[4:].startswith(starts) or bare):
            return name
    return ""
