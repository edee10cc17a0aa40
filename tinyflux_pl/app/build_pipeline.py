"""Configuration to a pipeline: from a checkpoint of ours, or from published weights."""

from __future__ import annotations

import functools
from typing import Any

from tinyflux_pl.app import attention_kernel, release_settings
from tinyflux_pl.app import inference_memory as generation_plan
from tinyflux_pl.config import signatures
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import ConfigError


def pipeline(config: dict[str, Any]) -> Any:
    """The pipeline of `checkpoint`, or of `model` with its published weights, on the chosen hardware."""
    from tinyflux_pl.app.checkpoint_plan import checkpoint_plan
    from tinyflux_pl.inference.pipeline import Pipeline, device_of, open_checkpoint

    config = release_settings.followed(config)
    device_of(config["hardware"]["accelerator"])  # tells of a GPU that is not there, before weights are read
    described = [name for name in ("model", "codec", "text", "path") if config[name]]
    if config["checkpoint"] is not None:
        if described:
            raise ConfigError(
                f"a checkpoint brings its own {', '.join(described)}",
                where="generate",
                cure=f"leave {', '.join(f'{name}=' for name in described)} out",
            )
        checkpoint = open_checkpoint(config["checkpoint"])
        images = generation_plan.batch_size(config, functools.partial(checkpoint_plan, checkpoint, config))
        made = Pipeline.from_checkpoint(checkpoint, config["weights"]).adjusted(batch_size=images)
    else:
        made = _published(config)
    made = made.adjusted(config["height"], config["width"], config["sampler"], config["guidance"])
    pictures = _pictures(config)
    if any(pictures.values()):
        sized = config["height"] is not None or config["width"] is not None
        made = made.editing(**pictures, keep_size=sized)
    return made.on(config["hardware"]["accelerator"], config["hardware"]["precision"])


def _published(config: dict[str, Any]) -> Any:
    import torch

    from tinyflux_pl.core import rng
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.inference.pipeline import Pipeline, device_of
    from tinyflux_pl.sampling.images import require_guided

    model = config["model"] or {}
    if not model.get("weights") and not model.get("random_weights"):
        raise ConfigError(
            "no weights to draw from",
            where="checkpoint",
            cure="give checkpoint=FOLDER, or model=NAME model.weights=FILE.safetensors (or a release's FOLDER)",
        )
    attention_kernel.require(model, device_of(config["hardware"]["accelerator"]))
    guidance = Guidance(**signatures.check(Guidance, _given(config["guidance"]), "guidance"))
    require_guided(config["negative_prompt"], guidance)
    generation_plan.check_size_of(config)
    images = generation_plan.batch_size(config)
    codec, text, path = (build(config[name], name) for name in ("codec", "text", "path"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(config["seed"], "init"))  # of random weights; others do not see it
        denoiser = build(model, "model", latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path)
    side = denoiser.image_size or generation_plan.PUBLISHED_SIZE
    chosen = {key: value for key, value in model.items() if key not in ("_target_", "structure")}
    made = Pipeline.from_parts(denoiser, codec, text, (side, side), chosen)
    return made.adjusted(batch_size=images)


def _given(values: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (values or {}).items() if value is not None}


def _pictures(config: dict[str, Any]) -> dict[str, Any]:
    """What the picture is drawn from, beside the words."""
    references = config["reference"] or []
    given = [references] if isinstance(references, str) else list(references)
    return {"references": given, "image": config["image"], "mask": config["mask"]}
