"""What a release's own files say of drawing from it, in place of what its configuration leaves open (null)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ConfigError, HubError

SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
TARGETS = {
    "linear": "tinyflux_pl.diffusion.paths.LinearPath",
    "vp": "tinyflux_pl.diffusion.paths.VPPath",
    "edm": "tinyflux_pl.diffusion.paths.EDMPath",
}
MARKERS = ("v_pred", "ztsnr")  # keys in single files of SDXL: what the network predicts, and to which table
EDM_MARKERS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
# Of model_index.json: parts of the pipeline, and what concerns none of them.
KNOWN = frozenset(
    [
        "scheduler",
        "unet",
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
        "feature_extractor",
        "image_encoder",
        "safety_checker",
        "add_watermarker",
        "force_zeros_for_empty_prompt",
        "is_distilled",
        "requires_safety_checker",
    ]
)


@dataclass(frozen=True)
class ReleaseFiles:
    """A release's index and its scheduler's settings ({} where there are none), and the markers of a single file."""

    index: dict[str, Any]
    scheduler: dict[str, Any]
    where: str
    markers: frozenset[str] = frozenset()


def followed(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what it leaves open as the release says it, or as `release.scheduler` does without one.

    Nothing changes where there is no release, or nothing is left open. Raises ConfigError for a scheduler or a
    setting that is not followed here, and what reading the release raises.
    """
    release = config.get("release")
    if not isinstance(release, Mapping) or not release.get("scheduler"):
        return config
    found = _files(config)
    config = _index_followed(config, found)
    sampler, model = config["sampler"], config["model"]
    unsaid = [key for key, value in sampler.items() if value is None]
    if not unsaid and config["path"] and model.get("prediction", "") is not None:
        return config
    from tinyflux_pl.sampling.release_schedule import schedule_of

    told, where = found.scheduler or dict(release["scheduler"]), f"{found.where}/{SCHEDULER}"
    if not found.scheduler:
        where = "release.scheduler"
    told |= _marked(found)
    named = found.index.get("scheduler") if found.scheduler else None
    kind = named[1] if isinstance(named, list) and len(named) == 2 and named[1] else told.get("_class_name", "")
    schedule = schedule_of(kind, told, where, release["spacing"], release["dynamic_shift"])
    name, settings = schedule.path
    if config["path"] and (config["path"].get("_target_"), name) == (TARGETS["linear"], "vp"):
        raise ConfigError(f"{kind} draws on another path", where=where, cure="weights of the model= that was chosen")
    changed = {
        **config,
        "sampler": {**sampler, **{key: schedule.sampler[key] for key in unsaid if key in schedule.sampler}},
    }
    if not config["path"]:
        changed["path"] = {"_target_": TARGETS[name], **settings}
        if schedule.data_deviation != 1:
            changed["codec"] = {**config["codec"], "data_deviation": schedule.data_deviation}
    if "prediction" in model and model["prediction"] is None:
        changed["model"] = {**model, "prediction": schedule.prediction or "epsilon"}
    if found.scheduler or found.markers:
        _tell(kind, where, changed, found)
    return changed


_TOLD: set[str] = set()


def _tell(kind: str, where: str, config: dict[str, Any], found: ReleaseFiles) -> None:
    sampler = config["sampler"]
    shift = "" if sampler["shift"] == 1 else f", shift {sampler['shift']}"
    kinds = f", {config['model']['prediction']}" if config["model"].get("prediction") else ""
    marks = f", {' and '.join(sorted(found.markers))} in the file" if found.markers else ""
    line = f"followed: {kind}, {sampler['solver']}, spacing {sampler['spacing']}{shift}{kinds}{marks} ({where})"
    if line not in _TOLD:
        _TOLD.add(line)
        print(line)


def _index_followed(config: dict[str, Any], found: ReleaseFiles) -> dict[str, Any]:
    from tinyflux_pl.core.unused_settings import name_unread

    unread = {k for k, v in found.index.items() if not k.startswith("_") and k not in KNOWN and v != [None, None]}
    name_unread(unread, f"{found.where}/{INDEX}")
    if found.index.get("is_distilled") and (config["guidance"] or {}).get("scale") not in (0, 1):
        what = "a step-distilled release, which is drawn from without guidance"
        cure = "guidance=none sampler.steps=4"
        raise ConfigError(what, where=f"{found.where}/{INDEX}: is_distilled", cure=cure)
    text = config["text"]
    if isinstance(text, Mapping) and "zero_null" in text and text["zero_null"] is None:
        zeros = bool(found.index.get("force_zeros_for_empty_prompt", True))
        return {**config, "text": {**text, "zero_null": zeros}}
    return config


def _marked(found: ReleaseFiles) -> dict[str, Any]:
    """What the markers of a single file say in a scheduler's terms; ConfigError for those that are not followed."""
    edm = sorted(found.markers & set(EDM_MARKERS))
    if edm:
        cure = "give the release's folder in diffusers' layout, whose scheduler and autoencoder say the numbers"
        raise ConfigError(f"an EDM network ({', '.join(edm)}) in a single file", where=found.where, cure=cure)
    told: dict[str, Any] = {"prediction_type": "v_prediction"} if "v_pred" in found.markers else {}
    if "ztsnr" in found.markers:
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return told


def _files(config: Mapping[str, Any]) -> ReleaseFiles:
    """Of the model's own place, else of the place of the other parts."""
    release, model = config["release"], config["model"]
    markers: frozenset[str] = frozenset()
    for weights, revision in (
        (model.get("weights"), model.get("revision")),
        (release.get("weights"), release.get("revision")),
    ):
        if not weights:
            continue
        file = Path(str(weights)).expanduser()
        if file.is_file() and not markers:
            markers = _markers_of(file)
        folder = _folder(str(weights), revision)
        if folder is not None:
            return ReleaseFiles(_object(folder / INDEX), _object(folder / SCHEDULER), str(folder), markers)
    return ReleaseFiles({}, {}, str(model.get("weights") or "release"), markers)


def _folder(weights: str, revision: str | None) -> Path | None:
    """The pipeline's folder: itself, the one around a network's folder or a file, a pinned repository's; else None."""
    from tinyflux_pl.weights import hub

    place = Path(weights).expanduser()
    if revision and not place.exists():
        try:
            place = hub.resolve(weights, revision, [SCHEDULER, INDEX])
        except HubError as error:
            if "has none of" in error.what:  # a repository of the network alone
                return None
            raise
    for folder in (place, place.parent):
        if (folder / SCHEDULER).is_file() or (folder / INDEX).is_file():
            return folder
    return None


def _object(file: Path) -> dict[str, Any]:
    from tinyflux_pl.core.files import read_object

    return read_object(file) if file.is_file() else {}


def _markers_of(file: Path) -> frozenset[str]:
    from tinyflux_pl.weights.headers import tensor_shapes

    if file.suffix not in (".safetensors", ".sft"):
        return frozenset()
    return frozenset(tensor_shapes(file).keys() & {*MARKERS, *EDM_MARKERS})
