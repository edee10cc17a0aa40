"""Fault 29: foreign run folders, bundles and configurations read, send and overwrite no file."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.app.fitting.replay import replay
from tinyflux_pl.config import logger_endpoints as loggers
from tinyflux_pl.config.build import build
from tinyflux_pl.config.diff import ANOTHER_RUN, changes
from tinyflux_pl.config.saved_nodes import build_saved
from tinyflux_pl.core.errors import ConfigError

PROJECT = "tinyflux_pl"
RATE = {"_target_": f"{PROJECT}.diffusion.schedules.LearningRate", "total_steps": 10}


def hostile(folder) -> dict[str, dict[str, Any]]:
    """Nodes that overwrite `victim.png` or copy `secret.txt` into a run, by project functions."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "any.png")
    (folder / "secret.txt").write_text("mine")
    (folder / "victim.png").write_text("mine")
    pixels = {
        "_target_": f"{PROJECT}.data.images.resize_rules.read_picture",
        "file": str(folder / "any.png"),
    }
    images = {"_target_": f"{PROJECT}.data.images.resize_rules.image_tensor", "pixels": pixels}
    grid = {
        "_target_": f"{PROJECT}.sampling.picture.captioned_grid",
        "images": images,
        "captions": ["x"],
        "columns": 1,
    }
    saved = {"picture": grid, "path": str(folder / "victim.png"), "metadata": {}}
    text = {"_target_": "pathlib.Path", "_args_": [str(folder / "secret.txt")]}
    return {
        "a picture saved": {"_target_": f"{PROJECT}.sampling.picture.save_png", **saved},
        "the same, deeper": {
            **RATE,
            "floor": {"_target_": f"{PROJECT}.sampling.picture.save_png", **saved},
        },
        "a text read": {"_target_": f"{PROJECT}.data.records.dataset_files.text_of", "path": text},
        "a trainer": {"_target_": "lightning.pytorch.Trainer", "default_root_dir": str(folder)},
        "a profile written": {
            "_target_": "lightning.pytorch.profilers.SimpleProfiler",
            **{"dirpath": str(folder), "filename": "victim"},
        },
        "a table read": {
            "_target_": f"{PROJECT}.data.sequences.array_file.ArrayFile",
            "path": str(folder / "secret.txt"),
        },
        "weights read": {
            "_target_": f"{PROJECT}.text.encoder_file.read",
            "file": str(folder / "secret.txt"),
            "part": "x",
        },
        "another's dataset": {
            "_target_": f"{PROJECT}.data.cached_dataset.CachedDataset",
            "store": str(folder),
        },
        "not a part of that group": {
            "_target_": f"{PROJECT}.data.tasks.shapes.records.Shapes",
            "count": 10,
            "size": 8,
        },
        "a network": {"_target_": f"{PROJECT}.nets.blocks.MLP", "width": 10**9},
        "a list": [RATE],
        "a name": "tinyflux_pl.diffusion.schedules.LearningRate",
        "nothing": {},
        "values that are none": {**RATE, "decay": ["cosine"] * 5000},
        "a text without end": {**RATE, "decay": "x" * 10**6},
    }


def untouched(folder) -> bool:
    names = {path.name for path in folder.iterdir()}
    kept = (folder / "victim.png").read_text() == "mine" and (
        folder / "secret.txt"
    ).read_text() == "mine"
    return kept and names == {"any.png", "secret.txt", "victim.png"}


def test_a_resumed_configuration_builds_no_foreign_target(tmp_path, figure):
    attacks = hostile(tmp_path)
    now = {"schedule": RATE}
    passed = 0
    for node in attacks.values():
        changed = changes(json.loads(json.dumps({"schedule": node})), now, step=5)
        passed += {change.effect for change in changed} == {ANOTHER_RUN} and untouched(tmp_path)
    figure(29, "config.json of a stranger's run, resumed", passed, len(attacks))


def test_a_replayed_bundle_builds_no_foreign_target(tmp_path, figure, monkeypatch):
    from tinyflux_pl.training.replay_bundle import Replay

    attacks = hostile(tmp_path)
    passed = tried = 0
    for node in attacks.values():
        for group in ("experts", "timesteps", "objective"):
            uniform = {"_target_": f"{PROJECT}.diffusion.timesteps.Uniform"}
            run = {"experts": {}, "timesteps": uniform}
            run = {**run, group: {"x": node} if group == "experts" else node}
            checkpoint = SimpleNamespace(config={}, path=tmp_path / "checkpoint")
            bundle = SimpleNamespace(config=run, checkpoint=checkpoint, null_text=None)
            monkeypatch.setattr(Replay, "read", lambda path, bundle=bundle: bundle)
            plain = {"experts": {}, "timesteps": RATE, "objective": {}}
            chosen = SimpleNamespace(replay=str(tmp_path), plain=plain)
            tried += 1
            try:
                replay(chosen)
            except ConfigError:
                passed += untouched(tmp_path)
    figure(29, "replay.json of a stranger's bundle", passed, tried)


@pytest.mark.parametrize("position", ["{_target_: X}", "nested"])
def test_no_configuration_reads_or_writes_files_through_our_functions(tmp_path, figure, position):
    attacks = {
        k: v for k, v in hostile(tmp_path).items() if isinstance(v, dict) and "_target_" in v
    }
    kinds = (
        "a picture saved",
        "a text read",
        "a trainer",
        "a profile written",
        "a table read",
        "weights read",
    )
    chosen = {name: attacks[name] for name in (*kinds, "another's dataset")}
    passed = 0
    for node in chosen.values():
        try:
            build(node if position != "nested" else {"logger": {"notes": [node]}})
        except ConfigError:
            passed += untouched(tmp_path)
    figure(29, f"a configuration that reads or writes, {position}", passed, len(chosen))


LOGGERS = [
    *({"version": "../../x"}, {"name": "/etc"}, {"folder": "a/../../b"}, {"sub_dir": "../x"}),
    *(
        {"config": "/etc/passwd"},
        {"save_code": True},
        {"artifact_location": "s3://evil"},
        {"dir": "/"},
    ),
]


@pytest.mark.parametrize("options", LOGGERS, ids=str)
def test_a_logger_stays_in_the_runs_folder_and_sends_no_file(options):
    with pytest.raises(ConfigError, match="may not"):
        loggers.check({"mine": {"_target_": "lightning.pytorch.loggers.WandbLogger", **options}})
    loggers.check({"mine": {"name": "digits/first", "version": "tensorboard", "config": {"a": 1}}})


def test_targets_of_the_project_and_of_the_user_are_built():
    assert build_saved(RATE, "schedule", {}, "config.json")(0) == 1.0
    stripes = {"_target_": f"{PROJECT}.data.tasks.shapes.records.Shapes", "count": 10, "size": 32}
    assert len(build_saved(stripes, "schedule", stripes, "config.json")) == 10, (
        "the command line names it"
    )
