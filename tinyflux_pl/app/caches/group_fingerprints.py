"""The inputs that decide each group of a run's caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import control_maps
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore, DataError
from tinyflux_pl.data.records.record_source import RecordSource


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


def precomputed_fingerprint(parts: Parts, records: RecordSource, name: str) -> dict[str, Any]:
    """Fingerprint of an expert's group that the dataset has already."""
    group = records.precomputed[name]
    return {
        "expert": name,
        **records.columns_fingerprint(name),
        "t_buckets": list(group.t_buckets),
        "clock": group.clock,
        "dtype": parts.config.data.store_dtype,
    }


def group_fingerprint(
    parts: Parts, records: RecordSource, name: str, extractor: Any, store: CacheStore | None
) -> dict[str, Any]:
    """Fingerprint of an expert's group, copied from the dataset or filled by `extractor`.

    `store` is the one that may hold it already.
    """
    if name in records.precomputed:
        return precomputed_fingerprint(parts, records, name)
    return expert_fingerprint(parts, extractor, extraction_precision(parts, store, name))


def needed_extractor(parts: Parts, name: str, datasets: Sequence[RecordSource]) -> Any:
    """The extractor of an expert; None where every one of the datasets has its columns already.

    DataError for a teacher that has to read pictures which a dataset does not have.
    """
    computed = [records for records in datasets if name not in records.precomputed]
    if not computed:
        return None
    extractor = extractor_of(parts, name)
    if all(records.has_pictures for records in computed) or shares_encodings(parts, extractor):
        return extractor
    without = next(records.name for records in computed if not records.has_pictures)
    raise DataError(
        f"the teacher of {name} reads pictures by a codec of its own, and data={without} has none",
        where=f"experts.{name}",
        cure=f"experts=none, or a cache that holds {name} already",
    )


def shares_encodings(parts: Parts, extractor: Any) -> bool:
    """True if the teacher reads the student's own latents and text: the cached ones serve."""
    teacher = extractor.teacher
    same_codec = teacher.codec.fingerprint() == parts.codec.fingerprint()
    return same_codec and teacher.text.fingerprint() == parts.text.fingerprint()
