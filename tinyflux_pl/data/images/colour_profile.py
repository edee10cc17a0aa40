"""Pixels to sRGB by the colour profile that their file holds."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

# of a profile -> mode of the pixels that it describes
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image of mode L, RGB or CMYK to sRGB pixels, perceptual intent.

    A profile that is damaged, or of another kind of pixels than the image's, says nothing of them.
    """
    transform = None if not profile else _transform(profile)
    if transform is None or image.mode not in (transform[0], "L" if transform[0] == "RGB" else ""):
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image if image.mode == transform[0] else image.convert(transform[0])
    return ImageCms.applyTransform(image, transform[1]) or image


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The pixel mode of a profile, and the transform to sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = SPACES.get(str(source.profile.xcolor_space).strip())
        if mode is None:
            return None
        srgb = ImageCms.createProfile("sRGB")
        return mode, ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # what it says of damaged ones
        return None
