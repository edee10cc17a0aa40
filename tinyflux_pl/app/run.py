"""The recipes: train, extract, generate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app.own_choices import named
from tinyflux_pl.app.preflight.verdict import with_verdict
from tinyflux_pl.app.run_folder import leaving_no_trace, others_in, owned
from tinyflux_pl.config import schema as plain_keys
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.rank import is_rank_zero

UNREAD = ("optimizer", "schedule", "sampler", "guidance", "objective", "timesteps", "callbacks", "logger")
UNREAD += ("steps", "resume")  # by extraction
TRAINING_ONLY = ("timesteps",)  # a model chooses it in every script; nothing is drawn by it


@leaving_no_trace
@named
def extract(config: dict[str, Any]) -> int:
    """Images and captions -> codec, text and experts -> cache; with `doctor`, caches and checkpoints verified."""
    from tinyflux_pl.app import hardware, report
    from tinyflux_pl.app.caches import doctor
    from tinyflux_pl.app.caches.prepare import prepare
    from tinyflux_pl.app.caches.sources import skipped
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.preflight import expectations

    plain_keys.check(config, "extract")
    _require_read(
        config, UNREAD, "extraction does not read", "it to train.py, which makes what the caches lack by itself"
    )
    if config["doctor"]:
        return doctor.run(config)
    _use_threads(config)
    report.notes(expectations.of_teachers(config))
    parts = Parts.from_config(hardware.chosen(config))
    parts.check_size()
    sources = prepare(parts, rebuild=config["rebuild"])
    report.caches(sources, skipped(sources))
    return 0


@leaving_no_trace
@with_verdict
@named
def train(config: dict[str, Any]) -> int:
    """Cache -> datamodule -> module -> checkpoint -> pictures, read back."""
    from tinyflux_pl.app import final_evaluation as closing_evaluation
    from tinyflux_pl.app import hardware, report
    from tinyflux_pl.app import resume as resumption
    from tinyflux_pl.app import training_memory as training_plan
    from tinyflux_pl.app.caches.ranks import prepare_on_rank_zero
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.preflight.preflight import Preflight
    from tinyflux_pl.app.training_run import Fitting

    plain_keys.check(config, "train")
    if config["replay"]:
        from tinyflux_pl.app.replay import replay

        return replay(config)
    if config["preflight"] == training_plan.ALONE:
        report.division(training_plan.divided({**config, "hardware": training_plan.always(config["hardware"])})[1])
        return 0
    started = time.perf_counter()
    _require_new_or_resumed(config)
    _use_threads(config)
    Parts.from_config(hardware.chosen(config)).check()
    config, plan = training_plan.divided(config)
    parts = Parts.from_config(config)
    config = parts.config  # with what a release's files say: a later start is held against it
    with owned(Path(config["run_dir"])), resumption.continued_by(config):
        _require_new_or_resumed(config)  # again: another process may have trained it before this one had the folder
        resumed = resumption.checkpoint_of(config)
        if resumed is not None:
            resumption.require_same_network(resumed, parts)
            resumption.require_same_path(resumed, parts, config["resume_changed"])
        preflight = Preflight(parts, resumed.step if resumed else 0, plan)
        if preflight.only:
            return 0
        if is_rank_zero():
            report.configuration(config, resumed.step if resumed else 0)
        sources = preflight.sources
        if not preflight.prepared:
            sources = prepare_on_rank_zero(parts, sources)
        preflight.remember()
        fitting = Fitting(parts, sources, resumed)
        fitting.fit()
        if not is_rank_zero():
            return 0
        results = closing_evaluation.results_of(fitting, started)
    report.results(results, Path(config["run_dir"]))
    if config["export_teacher"]:
        _keep_as_teacher(config, results)
    return 0


@leaving_no_trace
def generate(config: dict[str, Any]) -> int:
    """Checkpoint + prompt -> images, a grid, and how each was made."""
    from tinyflux_pl.app import checkpoint_plan, drawing_seed, hardware, prompt_advice, report
    from tinyflux_pl.app import inference_memory as generation_plan
    from tinyflux_pl.app.build_pipeline import pipeline
    from tinyflux_pl.data.training_captions import HELP
    from tinyflux_pl.inference.pipeline import read_prompts

    plain_keys.check(config, "generate")
    _require_read(
        config, TRAINING_ONLY, "drawing does not read", "sampler.shift and sampler.spacing, which say where steps lie"
    )
    if config["prompt"] == HELP:
        prompt_advice.show(config)
        return 0
    config = drawing_seed.chosen(hardware.decided(config))
    if generation_plan.only(config):
        report.plan(checkpoint_plan.planned(config))
        return 0
    _use_threads(config)
    config = hardware.chosen(config)
    if config["condition"] is not None:
        return _answer(config)
    prompts = read_prompts(config["prompt"], config["prompt_file"])
    if config["checkpoint"] is not None:
        report.notes(prompt_advice.notes(prompt_advice.captions_of(config["checkpoint"]), prompts))
    folder = config["output"] or config["run_dir"]
    chosen = {name: config[name] for name in ("n", "seed", "negative_prompt", "grid", "first")}
    report.pictures(*pipeline(config).write(prompts, folder, **chosen), config["grid"])
    return 0


def _answer(config: dict[str, Any]) -> int:
    """A file of conditions -> a file of pairs, by a model of sequences."""
    from tinyflux_pl.app import report
    from tinyflux_pl.app.build_pipeline import pipeline
    from tinyflux_pl.inference.sequences import SequencePipeline

    others = ("prompt", "prompt_file", "negative_prompt", "reference", "image", "mask", "height", "width")
    if given := [name for name in others if config[name] is not None] + ["first"] * bool(config["first"]):
        what = f"{', '.join(given)} beside a condition"
        raise ConfigError(what, where="the command line", cure="give condition= alone: its file says all")
    where = config["output"] or config["run_dir"]
    model = SequencePipeline(pipeline(config))
    report.answers(*model.write(config["condition"], where, n=config["n"], seed=config["seed"]))
    return 0


def _check_training(config: dict[str, Any]) -> None:
    from tinyflux_pl.app import hardware
    from tinyflux_pl.app.components import Parts

    plain_keys.check(config, "train")
    if not config["replay"]:
        Parts.from_config(hardware.decided(config)).check()


def _check_extraction(config: dict[str, Any]) -> None:
    from tinyflux_pl.app import hardware
    from tinyflux_pl.app.components import Parts

    plain_keys.check(config, "extract")
    if not config["doctor"]:
        Parts.from_config(hardware.decided(config)).check_size()


def _check_drawing(config: dict[str, Any]) -> None:
    from tinyflux_pl.inference.pipeline import read_prompts

    plain_keys.check(config, "generate")
    if config["plan"] != "only" and config["condition"] is None:
        read_prompts(config["prompt"], config["prompt_file"])


# what a job would be refused for before its first step, as far as no file of weights is read: for sweeps
CHECKS = {"train": _check_training, "extract": _check_extraction, "generate": _check_drawing}


def _require_read(config: dict[str, Any], unread: Sequence[str], what: str, instead: str) -> None:
    """Raise ConfigError where the command line itself asks for what the script does not read."""
    for key in (line.lstrip("+~").partition("=")[0] for line in config.get("overrides", [])):
        if key.partition(".")[0].partition("@")[0] in unread:
            raise ConfigError(f"{what} {key}", where=key, cure=f"leave it out; give {instead}")


def _use_threads(config: dict[str, Any]) -> None:
    if config["hardware"]["threads"]:
        import torch

        torch.set_num_threads(int(config["hardware"]["threads"]))


def _keep_as_teacher(config: dict[str, Any], results: dict[str, Any]) -> None:
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.experts.teacher_export import export_teacher

    name = config["export_teacher"]
    recipe = {key: config[key] for key in ("seed", "steps", "optimizer", "schedule", "objective", "data", "hardware")}
    recipe |= {"accuracies": results["accuracies"], "validation_loss": results["validation_loss"]}
    print(f"teacher: {export_teacher(directory.read(results['checkpoint']), name, recipe)}")


def _require_new_or_resumed(config: dict[str, Any]) -> None:
    """Raise ConfigError for a run that has been made already, or a folder that holds something else."""

    run_dir = Path(config["run_dir"])
    if config["resume"] or not is_rank_zero():  # of several processes that train one run, the first writes
        return
    made = sorted((run_dir / "checkpoints").glob("[!.]*/manifest.json"))
    if made or (run_dir / "results.json").is_file():
        newest = f"has checkpoints (newest: {made[-1].parent.name})" if made else "came to its end"
        raise ConfigError(
            f"run {config['run']!r} already {newest}",
            where=config["run_dir"],
            cure="continue it with resume=auto, or choose another name: run=NAME",
        )
    if others := others_in(run_dir):
        raise ConfigError(
            f"the folder of run {config['run']!r} holds what no run has made: {', '.join(others[:3])}",
            where=config["run_dir"],
            cure="choose another name: run=NAME",
        )
