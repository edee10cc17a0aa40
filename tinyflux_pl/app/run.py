"""The recipes behind the scripts: train, extract, generate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app import ignored_keys
from tinyflux_pl.app.drawing import from_image
from tinyflux_pl.app.drawing.random_seed import with_seed
from tinyflux_pl.app.generated import drawn_pictures
from tinyflux_pl.app.preflight.plan_alone import with_plan_alone
from tinyflux_pl.app.preflight.verdict import with_verdict
from tinyflux_pl.app.released import small_release
from tinyflux_pl.app.reporting.closing_report import with_report
from tinyflux_pl.app.run_choices import with_run_choices
from tinyflux_pl.app.run_folder import locked_run_dir, remove_empty_run_dir, require_new_run
from tinyflux_pl.config import schema
from tinyflux_pl.config.methods_with_data import chooses_data
from tinyflux_pl.config.schema import Generate, Train
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from tinyflux_pl.app.caches.sources import Source
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.fitting.training_run import TrainingRun
    from tinyflux_pl.checkpoints.directory import Checkpoint

# Groups and keys that a script does not read.
EXTRACTION_IGNORES = (
    *("optimizer", "schedule", "sampler", "guidance", "objective", "timesteps", "callbacks"),
    *("logger", "steps", "resume", "method"),
)
DRAWING_IGNORES = ("timesteps",)  # a model chooses it in every script; nothing is drawn by it
DISTRIBUTION = ("devices", "strategy", "batch_size", "accumulation", "gradient_checkpointing")


@remove_empty_run_dir
@with_plan_alone
@with_verdict
@with_report
@with_run_choices
def train(plain: dict[str, Any]) -> int | float | list[float]:
    """Caches -> datamodule -> module -> checkpoint -> pictures, read back.

    Returns the metric that optimized_metric names, else the exit code.
    """
    from tinyflux_pl.app import hardware
    from tinyflux_pl.app.caches.ranks import prepare_on_rank_zero
    from tinyflux_pl.app.caches.record_captions import require_captions
    from tinyflux_pl.app.caches.sources import open_sources
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.fitting import final_evaluation, optimized_metric, resume
    from tinyflux_pl.app.memory import training_memory
    from tinyflux_pl.app.preflight.preflight import Preflight
    from tinyflux_pl.app.reporting import environment, report, run_record

    config = schema.read(plain, "train")
    if config.stages:
        from tinyflux_pl.app.stages import run_stages

        return run_stages.run(config, train)
    config = small_release.with_small_release(config)
    if config.replay:
        from tinyflux_pl.app.fitting.replay import replay

        return replay(config)
    started = time.perf_counter()
    optimized_metric.check(config)
    require_new_run(config)
    config = hardware.set_up(config)
    Parts.from_config(config).check()
    config, plan = training_memory.choose_division(config)
    parts = Parts.from_config(config)
    config = parts.config  # with the settings of a release's files: a resumption compares them
    with locked_run_dir(Path(config.run_dir)), resume.interruption_explained(config):
        require_new_run(config)  # again: another process may have trained it before the lock
        checkpoint = resume.checkpoint_to_continue(config)
        if checkpoint is not None:
            resume.require_same_network(checkpoint, parts)
            resume.require_same_path(checkpoint, parts)
        start = checkpoint.step if checkpoint else 0
        parts = drawn_pictures.with_picture_folders(parts)
        preflight = Preflight(parts, start, plan)
        if preflight.only:
            return 0
        if is_rank_zero():
            report.save_configuration(config, start)
            environment.save(Path(config.run_dir), parts.device)
        sources = preflight.sources
        if sources is None and is_rank_zero():
            sources = open_sources(parts)
            require_captions(parts.method, sources)
        if sources is None or not preflight.prepared:
            sources = prepare_on_rank_zero(parts, sources)
        preflight.save_surveys()
        optimized_metric.check_data(config, sources)
        run = assemble(parts, sources, checkpoint)
        with run_record.recorded(run, preflight.tables):
            run.fit()
            if not is_rank_zero():
                return 0
            results = final_evaluation.evaluate(run, started)
    report.results(results, Path(config.run_dir))
    if config.export_teacher:
        print(f"teacher: {final_evaluation.export_teacher(config, results)}")
    metric = optimized_metric.value(config, results, run.logged.values)
    return 0 if metric is None else metric


def assemble(
    parts: Parts[Train], sources: list[Source], checkpoint: Checkpoint | None
) -> TrainingRun:
    """Datamodule, module, callbacks, loggers and trainer of a run."""
    from tinyflux_pl.app.fitting import resume, training_run
    from tinyflux_pl.app.fitting.module_kinds import kind_of
    from tinyflux_pl.app.fitting.trainable import build_trainable
    from tinyflux_pl.app.sweeps import pruner
    from tinyflux_pl.training.last_values import LastValues
    from tinyflux_pl.training.trainer import make_trainer

    config = parts.config
    if checkpoint is not None:
        caches = training_run.cache_fingerprints(sources)
        resume.require_same_data(checkpoint, caches, config.resume_changed)
    start = checkpoint.step if checkpoint else 0
    run_dir, compiled = Path(config.run_dir), config.hardware.compile
    trainable = build_trainable(parts, run_dir, start, compiled=compiled)
    datamodule = training_run.build_datamodule(config, sources, start)
    callbacks = training_run.build_callbacks(parts, sources, trainable, datamodule, checkpoint)
    logged = LastValues()
    loggers = [*training_run.build_loggers(config, start), logged]
    callbacks.in_order.extend(pruner.callback(config, logged))
    hardware = config.hardware.plain
    if kind_of(parts).manual_steps:
        hardware = {**hardware, "accumulation": 1}
    in_order = callbacks.in_order
    trainer = make_trainer(hardware, run_dir=config.run_dir, callbacks=in_order, loggers=loggers)
    return training_run.TrainingRun(
        parts, sources, checkpoint, datamodule, trainable, callbacks, trainer, logged
    )


@remove_empty_run_dir
@with_run_choices
def extract(plain: dict[str, Any]) -> int:
    """Images and captions -> codec, text and experts -> cache; with `doctor`, verification."""
    from tinyflux_pl.app import hardware, picture_frames
    from tinyflux_pl.app.caches import doctor
    from tinyflux_pl.app.caches.prepare import prepare
    from tinyflux_pl.app.caches.sources import open_sources, skipped
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.app.preflight import expectations, extraction_preflight
    from tinyflux_pl.app.reporting import report

    config = schema.read(plain, "extract")
    cure = "give it to train.py, which fills its caches by itself"
    unread = [word for word in config.overrides if not chooses_data(word)]
    ignored_keys.refuse(unread, EXTRACTION_IGNORES, "extraction does not read", cure)
    if config.doctor:
        return doctor.run(config)
    doctor.refuse_keys(config)
    config = hardware.set_up(config)
    report.notes(expectations.teacher_notes(config))
    parts = Parts.from_config(config)
    picture_frames.require_cells(parts.image_size, parts.codec.latent_spec.downsample)
    sources = open_sources(parts)
    if not config.rebuild:  # which takes over rows of the old caches, as many as are still valid
        extraction_preflight.check(parts, sources)
    prepare(parts, rebuild=config.rebuild, sources=sources, shared=True)
    report.caches(sources, skipped(sources))
    return 0


@remove_empty_run_dir
def generate(plain: dict[str, Any]) -> int:
    """Checkpoint or model, and prompts -> images, a grid, and the command to draw each again."""
    from tinyflux_pl.app import hardware
    from tinyflux_pl.app.drawing import drawing_cache, prompt_advice, staging
    from tinyflux_pl.app.drawing.build_pipeline import pipeline
    from tinyflux_pl.app.memory import inference_memory
    from tinyflux_pl.app.reporting import report
    from tinyflux_pl.data.training_captions import HELP
    from tinyflux_pl.inference.prompts import read_prompts

    config = schema.read(from_image.with_recorded_settings(plain), "generate")
    cure = "give sampler.shift and sampler.spacing, which place the steps"
    ignored_keys.refuse(config.overrides, DRAWING_IGNORES, "drawing does not read", cure)
    training_keys, cure = [f"hardware.{key}" for key in DISTRIBUTION], "batch_size= is of drawing"
    ignored_keys.refuse(config.overrides, training_keys, "one process draws, and reads no", cure)
    if config.prompt == HELP:
        prompt_advice.show(config)
        return 0
    config = with_seed(config)
    if config.plan == "only":
        generation = inference_memory.plan(hardware.resolve_auto(config))
        report.plan(generation)
        report.notes([*staging.offload_lines(generation), staging.placement_line(generation)])
        return 0
    config = hardware.set_up(config)
    if config.condition is not None:
        return _generate_sequences(config)
    if config.from_image is not None:
        report.notes(from_image.redraw(pipeline(config), config))
        return 0
    prompts = read_prompts(config.prompt, config.prompt_file)
    if config.checkpoint is not None:
        captions = prompt_advice.captions_of(config.checkpoint)
        report.notes(prompt_advice.notes(captions, prompts))
    drawing = pipeline(config)
    paths, grid = staging.draw_pictures(drawing, prompts, config)
    report.pictures(paths, grid, config.grid)
    drawing.sampler.stage.end()
    report.notes(staging.memory_lines(drawing, config))
    report.notes(drawing_cache.report_lines(drawing, config, paths, prompts))
    return 0


def _generate_sequences(config: Generate) -> int:
    """A file of conditions -> a file of pairs, by a sequence model."""
    from tinyflux_pl.app.drawing.build_pipeline import pipeline
    from tinyflux_pl.app.reporting import report
    from tinyflux_pl.inference.sequences import SequencePipeline

    unused = ("prompt", "prompt_file", "negative_prompt", "reference", "image", "mask")
    unused += ("height", "width", "control")
    conflicting = [name for name in unused if getattr(config, name) is not None]
    conflicting += ["first"] * bool(config.first)
    if conflicting:
        what = f"condition= cannot be combined with {', '.join(conflicting)}"
        cure = "give condition= alone: its file holds every condition"
        raise ConfigError(what, where="the command line", cure=cure)
    model = SequencePipeline(pipeline(config))
    folder = config.output or config.run_dir
    report.answers(*model.write(config.condition, folder, n=config.n, seed=config.seed))
    return 0
