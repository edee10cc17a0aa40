"""Null settings of a configuration, filled in from the files of a release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinyflux_pl.config.release_schema import Release
from tinyflux_pl.config.schema import DataJob, Extract, Generate, Node, Train
from tinyflux_pl.core.errors import ConfigError, HubError

J = TypeVar("J", Train, Extract, DataJob, Generate)

SCHEDULER = "scheduler/scheduler_config.json"
INDEX = "model_index.json"
TARGETS = {
    "linear": "tinyflux_pl.diffusion.paths.LinearPath",
    "vp": "tinyflux_pl.diffusion.paths.VPPath",
    "edm": "tinyflux_pl.diffusion.paths.EDMPath",
}
# Keys in single files of SDXL: the prediction, and the table with zero terminal SNR.
MARKERS = ("v_pred", "ztsnr")
EDM_MARKERS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
# Keys of model_index.json that are read, or change nothing here.
INDEX_KEYS = frozenset(
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
    """Index and scheduler settings of a release ({}: no such file), or markers of a single file."""

    index: dict[str, Any]
    scheduler: dict[str, Any]
    where: str
    markers: frozenset[str] = frozenset()


def with_release_settings(config: J) -> J:
    """The configuration with null settings filled in from the release's scheduler.

    Without such a file, `release.scheduler` stands in. Nothing changes for a model without a
    release. Raises ConfigError for an unsupported scheduler, and the errors of reading files.
    """
    release = config.release
    if release is None or not release.scheduler:
        return config
    files = _files(release, config.model)
    config = _with_index(config, files)
    sampler, model = config.sampler, config.model
    unset = [key for key, value in sampler.items() if value is None]
    if not unset and config.path and model.get("prediction", "") is not None:
        return config
    from tinyflux_pl.sampling.release_schedule import schedule_of

    settings = dict(files.scheduler or release.scheduler)
    where = f"{files.where}/{SCHEDULER}" if files.scheduler else "release.scheduler"
    settings |= _marker_settings(files)
    kind = _scheduler_class(files) or settings.get("_class_name", "")
    schedule = schedule_of(kind, settings, where, release.spacing, release.dynamic_shift)
    path_name, path_settings = schedule.path
    if config.path and (config.path.get("_target_"), path_name) == (TARGETS["linear"], "vp"):
        cure = "choose weights of the model= that was chosen"
        raise ConfigError(f"{kind} draws on another path", where=where, cure=cure)
    filled = {key: schedule.sampler[key] for key in unset if key in schedule.sampler}
    changes: dict[str, Node] = {"sampler": {**sampler, **filled}}
    if not config.path:
        changes["path"] = {"_target_": TARGETS[path_name], **path_settings}
        if schedule.data_deviation != 1:
            changes["codec"] = {**config.codec, "data_deviation": schedule.data_deviation}
    if "prediction" in model and model["prediction"] is None:
        changes["model"] = {**model, "prediction": schedule.prediction or "epsilon"}
    config = config.replace(**changes)
    if files.scheduler or files.markers:
        _print_once(kind, where, config, files)
    return config


def _scheduler_class(files: ReleaseFiles) -> str:
    """The scheduler's class in the index; "" if it names none."""
    entry = files.index.get("scheduler") if files.scheduler else None
    return entry[1] or "" if isinstance(entry, list) and len(entry) == 2 else ""


_PRINTED: set[str] = set()


def _print_once(kind: str, where: str, config: DataJob | Generate, files: ReleaseFiles) -> None:
    sampler, prediction = config.sampler, config.model.get("prediction")
    items = [kind, sampler["solver"], f"spacing {sampler['spacing']}"]
    if sampler["shift"] != 1:
        items.append(f"shift {sampler['shift']}")
    if prediction:
        items.append(prediction)
    if files.markers:
        items.append(f"{' and '.join(sorted(files.markers))} in the file")
    line = f"followed: {', '.join(items)} ({where})"
    if line not in _PRINTED:
        _PRINTED.add(line)
        print(line)


def _with_index(config: J, files: ReleaseFiles) -> J:
    """The configuration with the settings of model_index.json; notes keys that nothing reads."""
    from tinyflux_pl.core.unused_settings import name_unread

    unread = {
        key
        for key, value in files.index.items()
        if not key.startswith("_") and key not in INDEX_KEYS and value != [None, None]
    }
    name_unread(unread, f"{files.where}/{INDEX}")
    if files.index.get("is_distilled") and config.guidance.get("scale") not in (0, 1):
        raise ConfigError(
            "a step-distilled release is drawn from without guidance",
            where=f"{files.where}/{INDEX}: is_distilled",
            cure="guidance=none sampler.steps=4",
        )
    text = config.text
    if "zero_null" in text and text["zero_null"] is None:
        zeros = bool(files.index.get("force_zeros_for_empty_prompt", True))
        return config.replace(text={**text, "zero_null": zeros})
    return config


def _marker_settings(files: ReleaseFiles) -> dict[str, Any]:
    """The markers of a single file as scheduler settings; ConfigError for an EDM network."""
    edm = sorted(files.markers & set(EDM_MARKERS))
    if edm:
        raise ConfigError(
            f"an EDM network ({', '.join(edm)}) in a single file",
            where=files.where,
            cure="give the release's folder in diffusers' layout: its scheduler and autoencoder "
            "hold the numbers",
        )
    settings: dict[str, Any] = {}
    if "v_pred" in files.markers:
        settings["prediction_type"] = "v_prediction"
    if "ztsnr" in files.markers:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return settings


def _files(release: Release, model: Node) -> ReleaseFiles:
    """The files next to the model's weights, else those next to the other parts."""
    markers: frozenset[str] = frozenset()
    named = ((model.get("weights"), model.get("revision")), (release.weights, release.revision))
    for weights, revision in named:
        if not weights:
            continue
        file = Path(str(weights)).expanduser()
        if file.is_file() and not markers:
            markers = _markers_of(file)
        folder = _folder(str(weights), revision)
        if folder is not None:
            index, scheduler = _read_object(folder / INDEX), _read_object(folder / SCHEDULER)
            return ReleaseFiles(index, scheduler, str(folder), markers)
    return ReleaseFiles({}, {}, str(model.get("weights") or "release"), markers)


def _folder(weights: str, revision: str | None) -> Path | None:
    """The pipeline's folder: `weights`, its parent, or the snapshot of a pinned repository."""
    from tinyflux_pl.weights import hub

    path = Path(weights).expanduser()
    if revision and not path.exists():
        try:
            path = hub.resolve(weights, revision, [SCHEDULER, INDEX])
        except HubError as error:
            if "has none of" in error.what:  # a repository of the network alone
                return None
            raise
    for folder in (path, path.parent):
        if (folder / SCHEDULER).is_file() or (folder / INDEX).is_file():
            return folder
    return None


def _read_object(file: Path) -> dict[str, Any]:
    from tinyflux_pl.core.files import read_object

    return read_object(file) if file.is_file() else {}


def _markers_of(file: Path) -> frozenset[str]:
    from tinyflux_pl.weights import tensor_files

    if file.suffix not in (".safetensors", ".sft", ".gguf"):
        return frozenset()
    return frozenset(tensor_files.shapes(file).keys() & {*MARKERS, *EDM_MARKERS})
