"""Canonical JSON and its SHA-256, by which caches and checkpoints are compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; refuses NaN and anything that is not plain data."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def hash_json(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data."""
    # file names may contain bytes that are not UTF-8, which Python represents as lone surrogates
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def sample_id(image_bytes: bytes, caption: str) -> int:
    """A sample's identity: 63 bits of the hash of its pixels and its caption."""
    digest = hashlib.blake2b(image_bytes, digest_size=32)
    digest.update(b"\0" + caption.encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1
