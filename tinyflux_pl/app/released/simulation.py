"""`simulate=true`: a family's whole pipeline in small, with random weights and no files."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Generate, Train
from tinyflux_pl.core.errors import ConfigError


def simulated(config: Generate) -> Any:
    """The pipeline of `model`, each part reduced by its own rule, with weights from `seed`.

    Its pictures say that they are simulated.
    """
    from tinyflux_pl.data.images.resize_rules import SMALL
    from tinyflux_pl.inference.pipeline import Pipeline

    _require_parts(config)
    denoiser, codec, text = small_parts(config)
    if denoiser.reference_size is not None:  # its own would be that of the whole release
        denoiser.reference_size = "small"
    size = (SMALL, SMALL)  # where height= and width= are not given
    parts = Pipeline.from_parts(denoiser, codec, text, size, {"random_weights": True})
    return parts.adjusted(batch_size=config.batch_size).with_metadata(
        weights="simulated", simulated=True
    )


def small_parts(config: Generate | Train) -> tuple[Any, Any, Any]:
    """Denoiser, codec and text encoder of a configuration in small, with random weights."""
    from tinyflux_pl.core.random_weights import drawn_from, fill_zeros
    from tinyflux_pl.denoisers.registry import class_of_builder

    seed = config.seed
    codec = build(config.codec, "codec").simulated(seed)
    text = build(config.text, "text").simulated(seed)
    path = build(config.path, "path")
    specs = {"latent_spec": codec.latent_spec, "text_spec": text.text_spec}
    family = class_of_builder(allowlist.resolve(config.model["_target_"], "model"))
    node = family.shrunk(dict(config.model), **specs)
    with drawn_from(seed, "init"):
        denoiser = build(node, "model", **specs, path=path)
    fill_zeros(denoiser, seed, "simulated/zeros")
    return denoiser, codec, text


def _require_parts(config: Generate) -> None:
    if config.model.get("weights"):
        what, cure = "a simulation reads no weights", "leave model.weights= out, or simulate=true"
        raise ConfigError(what, where="model.weights", cure=cure)
    missing = [name for name in ("model", "codec", "text", "path") if not getattr(config, name)]
    if missing:
        what = f"no {', '.join(missing)} to simulate"
        keys = " ".join(f"{name}=" for name in missing)
        cure = f"name a release, simulate=true model=flux1_dev; of your own {keys} too"
        raise ConfigError(what, where=missing[0], cure=cure)
