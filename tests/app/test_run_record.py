"""Loggers hold equal catalogued names of a run, its facts, its samples, and how it ended."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.app.runs import SMALLEST, configuration
from tests.faults import forks
from tests.wandb_file import recorded, recorded_below
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.cli import command_line
from tinyflux_pl.app.reporting import run_record
from tinyflux_pl.core import metric_names as names
from tinyflux_pl.core.errors import DataError, Interrupted

SMALL = (*SMALLEST, "hardware.threads=1", "callbacks.preview.count=2", "data.evaluation_prompts=2")
# No GPU, no autoencoder, no data with distances to training pictures, no error,
# no velocities as targets.
ABSENT = (names.MFU, names.RESULT_NOVELTY, names.ERROR)
ABSENT += (names.L1, names.PSNR, names.SEEN_L1, names.SEEN_PSNR)
ABSENT += tuple(entry for entry in names.CATALOGUE if entry.pattern.startswith("train/velocity"))
TENSORBOARD = {
    "_target_": "tinyflux_pl.training.tensorboard_logger.TensorBoardRun",
    "save_dir": "",
    "version": "tensorboard",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps with both experts, a preflight and all three loggers."""
    root = tmp_path_factory.mktemp("record")
    config = configuration(
        "train",
        root,
        *(*SMALL, "experts=lune_sol", "logger=wandb", "preflight=true", "run=all", "steps=4"),
        *("callbacks.log_every_steps=2", "data.sources.shapes.train.count=16"),
    )
    config["logger"]["tensorboard"] = TENSORBOARD
    recipes.train(config)
    folder = root / "outputs" / "all"
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    (wandb_run,) = recorded_below(folder)
    with open(folder / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return SimpleNamespace(folder=folder, rows=rows, events=events, wandb=wandb_run)


def test_all_loggers_receive_equal_scalars(finished):
    columns = set(finished.rows[0]) - {"step"}
    tags = {tag for tag in finished.events.Tags()["scalars"] if names.find(tag) in names.SCALARS}
    logged = {name for name in finished.wandb.logged if names.find(name) in names.SCALARS}
    assert columns == tags == logged
    for name in ("train/loss", "validation/seen_loss_t_0.5", "preview/readable"):
        curve = [(int(r["step"]), float(r[name])) for r in finished.rows if r[name]]
        assert finished.wandb.curve(name) == curve
        assert [(e.step, pytest.approx(e.value)) for e in finished.events.Scalars(name)] == curve


def test_a_run_logs_exactly_the_applicable_catalogued_names(finished):
    logged = {*finished.wandb.logged, *(k for k in finished.wandb.summary if k[0] != "_")}
    logged -= {"trainer/global_step"}
    entries = {name: names.find(name) for name in logged}
    assert not [name for name, entry in entries.items() if entry is None]
    missing = set(names.CATALOGUE) - set(entries.values()) - set(ABSENT)
    assert not missing
    assert {k for k in logged if names.TERM is entries[k]} == {
        "train/flow",
        "train/lune",
        "train/sol",
    }
    assert {k for k in logged if names.GATE is entries[k]} == {"train/gate_vec", "train/gate_prior"}


def test_samples_are_a_table_with_step_seed_caption_and_image(finished):
    ((step, table),) = finished.wandb.curve("preview/samples")
    (artifact,) = [a for a in finished.wandb.artifacts if "preview/samples.table.json" in a]
    stored = json.loads(artifact["preview/samples.table.json"].read_text())
    assert table["_type"] == "table-file"
    assert stored["columns"] == ["step", "seed", "caption", "picture"]
    results = json.loads((finished.folder / "results.json").read_text())
    assert [row[:3] for row in stored["data"]] == [[4, 0, c] for c in results["prompts"]]
    pictures = [artifact[row[3]["path"]] for row in stored["data"]]
    assert all(Image.open(picture).size == (32, 32) for picture in pictures)
    assert all(finished.folder in file.parents for file in artifact.values())
    assert step == 4 and finished.events.Tags()["images"] == ["preview/grid"]
    (text,) = finished.events.Tensors("preview/samples/text_summary")
    table_text = text.tensor_proto.string_val[0].decode()
    assert text.step == 4 and "step 4, seed 0" in table_text and results["prompts"][0] in table_text


def test_the_configuration_is_logged_flat_and_complete_with_provenance(finished):
    stored = json.loads((finished.folder / "config.json").read_text())
    expected = {k: v for k, v in run_record.flat(stored) if k != "from_step"}
    config = {k: v for k, v in finished.wandb.config.items() if k != "_wandb"}
    provenance = {k: config.pop(k) for k in list(config) if k.startswith("provenance/")}
    assert config == expected and config["model/axes_dims_rope"] == "[4,6,6]"
    facts = json.loads((finished.folder / "provenance.json").read_text())
    assert provenance == {f"provenance/{k}": v for k, v in facts.items()}
    assert {"git_commit", "git_dirty", "data/shapes", "cache/shapes"} < facts.keys()
    assert facts["parameters"] >= facts["trainable_parameters"] > 0


def test_preflight_and_final_results_are_in_both_dashboards(finished):
    tables = {f"preflight/{name}" for name in ("data", "memory", "budget")}
    assert tables < finished.wandb.logged
    assert {f"{name}/text_summary" for name in tables} < set(finished.events.Tags()["tensors"])
    results = json.loads((finished.folder / "results.json").read_text())
    summary = run_record.summary(results)
    assert summary["results/validation_loss"] == results["validation_loss"]
    assert (
        summary["results/readings/shapes/train/fit"] == (results["readings"]["shapes/train"]["fit"])
    )
    assert {k: v for k, v in finished.wandb.summary.items() if k.startswith("results/")} == summary
    assert finished.events.Scalars("results/validation_loss")[0].value == pytest.approx(
        results["validation_loss"]
    )


def failing(root, error, *words):
    """A run whose third step raises; through the command line, as train.py does."""

    def work():
        from tinyflux_pl.training.flow_module import FlowModule

        usual, calls = FlowModule.training_step, []

        def step(self, *arguments):
            calls.append(1)
            if len(calls) == 3:
                raise error
            return usual(self, *arguments)

        FlowModule.training_step = step
        small = ["data.sources.shapes.train.count=16", "data.sources.shapes.validation.count=8"]
        sys.argv = ["train.py", "debug=fast", *SMALL, *small, f"paths.root={root}", *words]
        command_line.run("train")

    return forks.run(work, root / "printed.log", timeout=300)


@pytest.mark.parametrize(
    ("error", "state", "code", "preempting"),
    [
        (DataError("a shard is gone; token hf_" + "a" * 34), "failed", 1, False),
        (Interrupted(15), "interrupted", 143, True),
    ],
)
def test_an_unfinished_run_is_marked_unfinished(tmp_path, error, state, code, preempting):
    words = ("logger=wandb", "preflight=false", "run=x", "callbacks.checkpoint.every_steps=2")
    ended = failing(tmp_path, error, *words)
    assert ended.code == code, ended.printed[-2000:]
    (run,) = recorded_below(tmp_path)
    assert (run.exit_code, run.preempting) == (code, preempting)
    assert (run.summary["run/state"], run.summary["run/exit_code"]) == (state, code)
    assert run.summary["run/error"].startswith(error.what[:10])
    assert "a" * 34 not in run.summary["run/error"]


def test_a_resumed_run_continues_its_wandb_run_and_another_run_s_checkpoint_does_not(tmp_path):
    line = (*SMALL, "logger=wandb", "steps=2", "callbacks.checkpoint.every_steps=2")
    config = configuration("train", tmp_path, *line, "run=first")
    recipes.train({**config, "sweep": "of_seeds", "swept": ["seed=3", "steps=2"]})
    more = ("steps=3", "callbacks.validation.every_steps=0")
    recipes.train(configuration("train", tmp_path, *line, *more, "run=first", "resume=auto"))
    runs = recorded_below(tmp_path / "outputs" / "first")
    assert len(runs) == 2 and {run.id for run in runs} == {runs[0].id}
    assert {(run.name, run.group) for run in runs} == {("seed=3,steps=2", "of_seeds")}
    assert runs[1].curve("train/loss")[0][0] == 3
    origin = tmp_path / "outputs" / "first" / "checkpoints" / "step_0000002"
    other = configuration("train", tmp_path, *line, *more, "run=other", f"resume='{origin}'")
    recipes.train(other)
    (run,) = recorded_below(tmp_path / "outputs" / "other")
    assert run.id != runs[0].id and run.name == "other" and run.group == ""


def test_disabled_wandb_writes_no_file_and_does_not_change_the_run(tmp_path):
    line = (*SMALL, "logger=wandb", "logger.wandb.mode=disabled", "steps=1", "run=x")
    recipes.train(configuration("train", tmp_path, *line))
    assert not recorded_below(tmp_path)
    assert (tmp_path / "outputs" / "x" / "results.json").is_file()


def test_a_run_of_a_wandb_agent_keeps_the_agents_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "ofagent1")
    line = (*SMALL, "logger=wandb", "steps=1", "run=x")
    recipes.train(configuration("train", tmp_path, *line))
    (file,) = tmp_path.rglob("*.wandb")
    assert recorded(file).id == "ofagent1"
