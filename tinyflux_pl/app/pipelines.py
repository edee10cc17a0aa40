"""Configuration to a pipeline: from a checkpoint of ours, or from published weights."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.app.compose import build
from tinyflux_pl.core.errors import ConfigError

PUBLISHED_SIZE = 512  # pixels along a side, where neither a checkpoint nor the user says


def pipeline(config: dict[str, Any]) -> Any:
    """The pipeline of `checkpoint`, or of `model` with its published weights, on the chosen hardware."""
    from tinyflux_pl.inference.pipeline import Pipeline

    described = [name for name in ("model", "codec", "text", "path") if config[name]]
    if config["checkpoint"] is not None:
        if described:
            raise ConfigError(
                f"a checkpoint brings its own {', '.join(described)}",
                where="generate",
                cure=f"leave {', '.join(f'{name}=' for name in described)} out",
            )
        made = Pipeline.from_checkpoint(config["checkpoint"], config["weights"])
    else:
        made = _published(config)
    made = made.adjusted(config["height"], config["width"], config["sampler"], config["guidance"])
    return made.on(config["hardware"]["accelerator"], config["hardware"]["precision"])


def _published(config: dict[str, Any]) -> Any:
    from tinyflux_pl.inference.pipeline import Pipeline

    if not config["model"] or not config["model"].get("weights"):
        raise ConfigError(
            "no weights to draw from",
            where="checkpoint",
            cure="give checkpoint=FOLDER, or model=deep_v42 model.weights=FILE.safetensors",
        )
    codec, text, path = (build(config[name]) for name in ("codec", "text", "path"))
    denoiser = build(config["model"], latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path)
    return Pipeline.from_parts(denoiser, codec, text, (PUBLISHED_SIZE, PUBLISHED_SIZE), config["model"]["weights"])
