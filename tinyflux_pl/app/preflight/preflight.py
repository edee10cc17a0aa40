"""The preflight of a run: checks data, caches, disk and memory, and dry-runs a few steps."""

from __future__ import annotations

import gc
from typing import Any

import torch

from tinyflux_pl.app import run_sampling, unread_settings
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.caches.record_captions import require_captions
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.caches.sources import Source, open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import online_teacher
from tinyflux_pl.app.memory.batch_sizes import sizes
from tinyflux_pl.app.memory.training_plan import TrainingPlan
from tinyflux_pl.app.preflight import (
    cache_needs,
    dataset_survey,
    disk_needs,
    dry_run_setup,
    expectations,
    extraction_plan,
    tables,
)
from tinyflux_pl.app.preflight.budget import budget
from tinyflux_pl.app.preflight.verdict import ONLY
from tinyflux_pl.app.reporting import report
from tinyflux_pl.app.reporting import tables as printed
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.rank import is_rank_zero
from tinyflux_pl.engine import memory_plan
from tinyflux_pl.engine.peak_memory import available_bytes
from tinyflux_pl.training.optimizers import build_optimizer

HEADERS = 2**20  # bytes of a checkpoint beside its tensors
COMPILED = (
    "the dry run measures the network as it is; compiled (hardware.compile=true) it needs less"
)
SAMPLED = (
    "the caches are not made yet: dry run with a few samples, repeated, and captions of full length"
)


class Preflight:
    """Checks a run before its first step; raises what would end it later.

    preflight=false leaves out what takes seconds: reading every record, and the dry run. Nothing
    stays on disk. Only rank 0 checks.
    """

    def __init__(self, parts: Parts[Train], start: int, plan: TrainingPlan | None = None) -> None:
        self.parts = parts
        self.config = parts.config
        self.start = start
        thorough = bool(self.config.preflight)
        self.only = self.config.preflight == ONLY
        self.sources: list[Source] | None = None
        self.prepared = False  # the sources' caches are complete
        self.surveys: list[dataset_survey.Survey] = []
        self.samples: list[Source] = []
        self.extraction: list[extraction_plan.GroupPlan] = []
        self.tables: list[tables.Table] = []  # for the run's loggers
        if not is_rank_zero():
            return
        self.sizes = sizes(self.config.hardware)
        if plan is not None:
            report.division(plan)
        report.notes(expectations.schedule_notes(self.config))
        report.notes(expectations.teacher_notes(self.config))
        report.notes(expectations.map_notes(self.config))
        self._read_data(thorough)
        self._check_space()
        size = self.parts.image_size
        report.notes(expectations.picture_notes(self.config, self._sources, self.parameters, size))
        if thorough and start < self.config.steps:
            self._dry_run()

    def save_surveys(self) -> None:
        """Store the surveys with the finished caches of their records."""
        for survey in self.surveys:
            cache = self._cache(survey)
            dataset_survey.save_survey(survey, cache.records, cache.folder, self.parts.text)

    @property
    def _sources(self) -> list[Source]:
        assert self.sources is not None
        return self.sources

    @property
    def _caches(self) -> list[SourceCache]:
        return [cache for source in self._sources for cache in source.caches.values()]

    def _cache(self, survey: dataset_survey.Survey) -> SourceCache:
        source = next(s for s in self._sources if s.name == survey.source)
        return source.caches[survey.split]

    def _read_data(self, thorough: bool) -> None:
        """Build the records, read all of them if `thorough`, and check existing caches."""
        records: dict[str, dict[str, Any]] = {}
        refusals = []
        data = self.config.data
        for name, node in data.sources.items():
            records[name], refusal = dataset_survey.records_of(
                node.splits,
                lenient=thorough,
                write=not self.only,
                hint=data.hint,
                limit=data.limit,
            )
            refusals += [refusal] if refusal else []
        self.sources = open_sources(self.parts, records)
        trains = {source.name: source.train.records for source in self.sources}
        if thorough:
            self.surveys = [self._survey(cache) for cache in self._caches]
            fit_modes = {name: each.fit_mode for name, each in trains.items()}
            unused = {name: each.findings for name, each in trains.items()}
            self._show(tables.dataset(self.surveys, fit_modes, unused))
            named = {cache.title: cache.records for cache in self._caches}
            if frames := tables.frames(named, self.sizes.micro_batch):
                self._show(frames)
        if refusals:
            raise refusals[0]
        for survey in self.surveys:
            dataset_survey.require_readable(survey, self._cache(survey).records)
        unread_settings.check_masks(self.config, self.parts.method, trains)
        require_captions(self.parts.method, self.sources)
        self.needs = [need for cache in self._caches for need in cache_needs.needs(cache)]
        seed, run = self.config.seed, self.config.run
        cache_needs.check_shards(self.sources, self.needs, seed, run)
        if thorough and any(need.rows for need in self.needs):
            cache_needs.check_fingerprints(self.parts, self.sources)
            self.samples = cache_needs.sampled(self.parts, self.sources)
            self.extraction = extraction_plan.extraction_plan(
                self.parts, self.needs, self.sources, self.samples
            )
            self._show(tables.extraction(self.extraction))

    def _survey(self, cache: SourceCache) -> dataset_survey.Survey:
        frame, text = self.parts.image_size, self.parts.text
        return dataset_survey.survey(
            cache.source, cache.split, cache.records, frame, cache.folder, text
        )

    def _check_space(self) -> None:
        """Check disk and memory by arithmetic; the network is built on the meta device."""
        with torch.device("meta"):
            network = self.parts.student()
            rates = self.parts.method.rates(network)
            optimizer = build_optimizer(network, build(self.config.optimizer, "optimizer"), rates)
        if self.parts.trains == "denoiser":
            downsample = self.parts.codec.latent_spec.downsample
            size = self.parts.image_size
            report.notes(run_sampling.unguided(self.config, network, downsample, size))
        self.parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        saved = self.parts.method.saved(network)
        groups = optimizer.param_groups
        state = memory_plan.training_state(network, groups, saved, ranks=self.sizes.ranks)
        device = self.parts.device
        teacher = online_teacher.resident_bytes(self.parts)
        plan = memory_plan.training(state, {"step": teacher}, host=device == "cpu")
        cure = "a smaller model=, or a machine with more memory"
        free = available_bytes(device)
        plan.require(free, host=device == "cpu", where="model", cure=cure)
        checkpoint = state.snapshot + HEADERS
        self.writes = disk_needs.cache_disk(self.needs, self.samples) if self.samples else []
        self.writes += disk_needs.run_needs(
            self.config, self.start, checkpoint, self.parts.image_size
        )
        disk_needs.require_space(self.writes)
        if self.start < self.config.steps:
            online_teacher.require_weights(self.parts)

    def _dry_run(self) -> None:
        """Take a few steps with the caches or, where they are incomplete, with the samples."""
        if self.samples:
            longest = self.parts.text.text_spec.length
        else:
            prepare(self.parts, sources=self._sources)
            self.prepared = True
            longest = cache_needs.longest_caption(self._sources)
        device = self.parts.device
        free = available_bytes(device)
        used = self.samples or self._sources
        dry_run = dry_run_setup.dry_run(self.parts, self.sizes, self.start, used, longest)
        self._show(tables.memory(dry_run, free, device))
        figures = budget(
            self.config,
            self.sizes,
            self.start,
            dry_run,
            self.needs,
            self.writes,
            self._num_evaluated(),
            sum(plan.seconds for plan in self.extraction),
        )
        notes = [SAMPLED] * bool(self.samples) + [COMPILED] * self.config.hardware.compile
        self._show(tables.budget(figures, notes))
        del dry_run
        self.parts.method.free()
        gc.collect()  # trainer and module form a cycle; the run needs the memory of this copy
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _show(self, table: tables.Table) -> None:
        self.tables.append(table)
        printed.show(table.heading, table.rows)

    def _num_evaluated(self) -> int:
        """Number of pictures that the final evaluation draws."""
        if self.config.data.hint is not None:
            return 0
        splits = [len(source.train.records.prompt_splits) for source in self._sources]
        return self.config.data.evaluation_prompts * sum(splits)
