"""Preflight: check data, caches, disk and memory, run the first steps dry, and report the budget."""

from __future__ import annotations

import gc
from typing import Any

import torch

from tinyflux_pl.app import report as closing_report
from tinyflux_pl.app.batch_sizes import sizes
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.caches.sources import Source, open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import cache_needs, dataset_survey, disk_needs, dry_run_setup, expectations
from tinyflux_pl.app.preflight import tables as report
from tinyflux_pl.app.preflight.budget import budget
from tinyflux_pl.app.training_memory import TrainingPlan
from tinyflux_pl.core.rank import is_rank_zero
from tinyflux_pl.engine import memory_plan
from tinyflux_pl.engine.peak_memory import available_bytes

ONLY = "only"
HEADERS = 2**20  # of a checkpoint: what it holds beside tensors
COMPILED = "the dry run does not compile the network; compiled (hardware.compile=true) it takes less"
SAMPLED = "the caches do not exist yet: dry run with a few samples, repeated, and captions of full length"


def schedule_notes(config: dict[str, Any]) -> list[str]:
    """What a reader of the schedule should know: a warm-up that the run does not see the end of."""
    steps, warmup = config["steps"], config["schedule"].get("warmup_steps", 0)
    if warmup < steps:
        return []
    return [
        f"the warm-up of {warmup} steps is longer than the run of {steps}: the learning rate never comes to "
        f"optimizer.lr; schedule.warmup_steps={max(1, steps // 10)} would let it"
    ]


class Preflight:
    """What is known of a run before its first step; raises whatever would end it later, with its cure.

    `preflight=false` leaves out what takes seconds: reading every record, and the dry run.
    Nothing is written but one save that is removed again. The first rank alone looks.
    """

    def __init__(self, parts: Parts, start: int, plan: TrainingPlan | None = None) -> None:
        self.parts, self.config, self.start = parts, parts.config, start
        asked = self.config["preflight"]
        self.only = asked == ONLY
        self.sources: list[Source] | None = None  # records and caches, opened once
        self.prepared = False  # the caches are complete
        self.surveys: list[dataset_survey.Survey] = []
        self.samples: list[Source] = []
        if not is_rank_zero():
            return
        self.sizes = sizes(self.config["hardware"])
        if plan is not None:
            closing_report.division(plan)
        closing_report.notes([*schedule_notes(self.config), *expectations.of_teachers(self.config)])
        self._read_data(whole=bool(asked))
        self._judge_room()
        closing_report.notes(expectations.of(self.config, self._opened, self.parameters, self.parts.image_size))
        if asked and start < self.config["steps"]:
            self._dry_run()

    def remember(self) -> None:
        """Keep with the finished caches what was found of their records."""
        for found in self.surveys:
            cache = self._cache(found)
            dataset_survey.keep(found, cache.records, cache.folder, self.parts.text)

    @property
    def _opened(self) -> list[Source]:
        assert self.sources is not None
        return self.sources

    def _cache(self, found: dataset_survey.Survey) -> SourceCache:
        return next(source for source in self._opened if source.name == found.source).caches[found.split]

    def _read_data(self, whole: bool) -> None:
        """Build the records, read all of them if `whole`, check the existing caches."""
        records, refusals = {}, []
        for name, node in self.config["data"]["sources"].items():
            records[name], refusal = dataset_survey.records_of(node, lenient=whole, write=not self.only)
            refusals += [refusal] if refusal else []
        self.sources = open_sources(self.parts, records)
        caches = [cache for source in self.sources for cache in source.caches.values()]
        if whole:
            frame = self.parts.image_size
            self.surveys = [
                dataset_survey.survey(c.source, c.split, c.records, frame, c.folder, self.parts.text) for c in caches
            ]
            modes = {source.name: source.train.records.fit_mode for source in self.sources}
            unused = {source.name: source.train.records.findings for source in self.sources}
            report.dataset(self.surveys, modes, unused)
        if refusals:
            raise refusals[0]
        for found in self.surveys:
            dataset_survey.require_readable(found, self._cache(found).records)
        self.caches = [need for cache in caches for need in cache_needs.needs(cache)]
        cache_needs.check_shards(self.sources, self.caches, self.config["seed"], self.config["run"])
        if whole and any(need.rows for need in self.caches):
            cache_needs.check_fingerprints(self.parts, self.sources)
            self.samples = cache_needs.sampled(self.parts, self.sources)

    def _judge_room(self) -> None:
        """Disk and memory, by arithmetic alone; the network is built on the meta device."""
        with torch.device("meta"):
            network = self.parts.student()
            groups = dry_run_setup.optimizer_of(self.parts, network).param_groups
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        state = memory_plan.training_state(network, groups, ranks=self.sizes.ranks)
        device = self.parts.device
        plan = memory_plan.training(state, {"step": 0}, host=device == "cpu")
        cure = "a smaller model=, or a machine with more memory"
        plan.require(available_bytes(device), host=device == "cpu", where="model", cure=cure)
        checkpoint = state.snapshot + HEADERS
        self.writes = [
            *(disk_needs.cache_disk(self.caches, self.samples) if self.samples else ()),
            *disk_needs.run_needs(self.config, self.start, checkpoint, self.parts.image_size),
        ]
        disk_needs.require_room(self.writes)

    def _dry_run(self) -> None:
        """A few steps with what is cached, or where something is not, with the samples."""
        if self.samples:
            longest = self.parts.text.text_spec.length
        else:
            prepare(self.parts, sources=self._opened)
            self.prepared = True
            longest = cache_needs.longest_caption(self._opened)
        free, device = available_bytes(self.parts.device), self.parts.device
        used = self.samples or self._opened
        measured = dry_run_setup.dry_run(self.parts, self.sizes, self.start, used, longest)
        report.memory(measured, free, device)
        found = budget(
            self.config, self.sizes, self.start, measured, self.caches, self.writes, self._drawn_at_the_end()
        )
        notes = [SAMPLED] * bool(self.samples) + [COMPILED] * bool(self.config["hardware"]["compile"])
        report.budget(found, notes)
        del measured
        gc.collect()  # trainer and module know each other; the run needs the memory of this copy
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _drawn_at_the_end(self) -> int:
        """Pictures of the closing evaluation."""
        splits = [len(source.train.records.prompt_splits) for source in self._opened]
        return self.config["data"]["evaluation_prompts"] * sum(splits)
