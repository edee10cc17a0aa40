"""Compare precomputed columns of a dataset with the run's codec, text encoder and experts."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import pathway
from tinyflux_pl.cache.cached_text import FIRST
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.errors import ConfigError, DataError, SpecMismatch
from tinyflux_pl.data.records.precomputed_group import PrecomputedGroup

DIGITS = 6  # of a bucket's time, which a file holds in fp32
SAMPLED = "sampled"


def require_fitting(parts: Parts, caches: Sequence[SourceCache]) -> None:
    """Raise SpecMismatch or ConfigError for precomputed columns that do not fit the run's parts.

    DataError for an expert that neither a dataset without pictures nor a teacher provides.
    """
    for cache in caches:
        groups = cache.records.precomputed
        where = f"data.sources.{cache.source}"
        if ENCODINGS in groups:
            _require_latents(parts, groups[ENCODINGS], where)
            _require_text(parts, groups[ENCODINGS], where)
        for name in cache.experts:
            if name in groups:
                _require_expert(parts, name, groups[name], where)
            elif not cache.records.has_pictures and not _has_teacher(parts, name):
                has = ", ".join(group for group in groups if group != ENCODINGS) or "none"
                cure = "experts=none, or one of those that it has"
                raise DataError(
                    f"the cache holds nothing of the expert {name}; its experts: {has}",
                    where=where,
                    cure=cure,
                )


def _has_teacher(parts: Parts, group: str) -> bool:
    """True if the configuration names a teacher that could fill the group."""
    teacher = parts.config.teacher
    is_velocity = group not in parts.experts
    return is_velocity or bool(teacher.node(group))


def _require_latents(parts: Parts, group: PrecomputedGroup, where: str) -> None:
    spec = parts.codec.latent_spec
    channels, *cells = group.shapes["latents"]
    if channels != spec.channels:
        raise SpecMismatch(
            f"latents of {channels} channels, and codec={parts.codec.name} has {spec.channels}",
            where=where,
            cure="name the codec that made them: codec=flux1_unshifted",
        )
    height, width = (side * spec.downsample for side in cells)
    if (height, width) != parts.image_size:
        raise SpecMismatch(
            f"latents of {height} x {width} pixels, and data.image_size is "
            f"{' x '.join(map(str, parts.image_size))}",
            where=where,
            cure=f"data.image_size=[{height},{width}]",
        )
    if parts.config.data.flip:
        raise ConfigError(
            "latents without their pictures have no mirror images",
            where="data.flip",
            cure="data.flip=false",
        )
    if parts.config.codec.get("posterior") == SAMPLED:
        raise ConfigError(
            "these latents were sampled once, and their deviation was not kept",
            where="codec.posterior",
            cure="codec.posterior=mean",
        )


def _require_text(parts: Parts, group: PrecomputedGroup, where: str) -> None:
    spec = parts.text.text_spec
    if spec.ids or parts.text.trained_network() is not None:
        raise ConfigError(
            f"text={parts.text.name} reads no embeddings that another encoder has stored",
            where="text",
            cure="name the encoder that made them: text=flan_t5_clip_v42",
        )
    length, width = group.shapes[f"{FIRST}.tokens"]
    (pooled,) = group.shapes[f"{FIRST}.pooled"]
    if (length, width, pooled) != (spec.length, spec.width, spec.pooled):
        raise SpecMismatch(
            f"{length} tokens of width {width} and a pooled vector of {pooled}; "
            f"text={parts.text.name} has {spec.length} of {spec.width}, and {spec.pooled}",
            where=where,
            cure=f"name the encoder that made them: text=flan_t5_clip_v42 text.length={length}",
        )


def _require_expert(parts: Parts, name: str, group: PrecomputedGroup, where: str) -> None:
    spec = parts.cached[name].spec
    clock = parts.config.experts[name].get("clock", pathway.MATCHED)
    if clock != group.clock:
        raise ConfigError(
            f"{name} was cached with clock={group.clock}, and the run has clock={clock}",
            where=f"experts.{name}.clock",
            cure=f"experts.{name}.clock={group.clock}",
        )
    times = tuple(round(t, DIGITS) for t in spec.t_buckets)
    if times != group.t_buckets:
        raise SpecMismatch(
            f"{name} was cached at {list(group.t_buckets)}, and the run has {list(times)}",
            where=f"experts.{name}.t_buckets",
            cure=f'"experts.{name}.t_buckets={list(group.t_buckets)}"',
        )
    for column, shape in spec.shapes.items():
        stored = group.shapes[f"{name}.{column}"]
        if stored[1:] != shape:
            raise SpecMismatch(
                f"{name}.{column} is {stored[1:]} a bucket, and the run's expert has {shape}",
                where=where,
                cure="teacher=original_cache teacher.width=WIDTH, and experts.sol.stats=3 "
                "experts.sol.size=8",
            )
