"""The inputs that decide each group of a run's caches."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.app import control_maps
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore


def encodings_fingerprint(parts: Parts) -> dict[str, Any]:
    """Fingerprint of the latents and text embeddings of the run's codec and text encoder."""
    from tinyflux_pl.extraction import encode

    form = None if parts.config.data.hint is None else control_maps.hint_form(parts.config)
    data = parts.config.data
    return encode.encodings_fingerprint(parts.codec, parts.text, data.store_dtype, form, data.flip)


def extractor_of(parts: Parts, name: str) -> Any:
    """The extractor that fills an expert's group, with its teacher.

    SpecMismatch for velocities of a teacher in another latent space than the student's.
    """
    teacher = parts.teacher(name)
    if any(target.name == name for target in parts.targets.values()):
        from tinyflux_pl.experts.velocity import require_same_latents

        require_same_latents(teacher, parts.codec)
    return parts.cached[name].extractor(teacher, parts.path, parts.config.teacher.seed)


def extraction_precision(parts: Parts, store: CacheStore | None, name: str) -> str:
    """Precision that an expert's group is extracted in.

    It is teacher.precision if set, else that of the cached group. The precision of training decides
    it for a new group alone: cached features do not go stale with it.
    """
    from tinyflux_pl.core import precision

    requested = parts.config.teacher.precision
    if requested is not None:
        return precision.choose(requested, parts.config.hardware.accelerator)
    try:
        cached = store.groups().get(name, {}) if store is not None else {}
    except CorruptStore:  # a rebuild reports it and starts over; any other run has stopped before
        cached = {}
    return cached.get("precision", parts.precision)


def expert_fingerprint(
    parts: Parts, extractor: Any, precision: str | None = None
) -> dict[str, Any]:
    """Fingerprint of an expert's group, extracted in `precision` (None: that of training)."""
    computed = {"dtype": parts.config.data.store_dtype, "precision": precision or parts.precision}
    return {**extractor.fingerprint(), **computed}
