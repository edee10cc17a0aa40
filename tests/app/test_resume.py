"""Changes that a resumed run may make, and how its checkpoint is located."""

import copy
import json
import signal

import pytest
import torch

from tests.app.runs import configuration
from tinyflux_pl.app.fitting import resume
from tinyflux_pl.app.reporting import report
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config import schema
from tinyflux_pl.core import interpreter
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, Interrupted


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return configuration(
        "train",
        tmp_path_factory.mktemp("project"),
        "run=x",
        "steps=100",
        "schedule.warmup_steps=20",
    )


def checkpoint_of(config):
    return resume.checkpoint_to_continue(schema.read(config, "train"))


def command(config):
    return resume.command(schema.read(config, "train"))


def continued_by(config):
    return resume.interruption_explained(schema.read(config, "train"))


OTHER_DIVISION = {
    "devices": 7,
    "accelerator": "gpu",
    "strategy": "ddp",
    "compile": True,
    "accumulation": 2,
}


def test_dropout_makes_another_division_of_the_batch_another_run(run_of, capsys):
    """Its masks belong to a micro-batch, not to a sample: not the last bits."""
    config = run_of(
        10,
        {"config.json": {}},
        described={"denoiser": {"config": {"lune_dropout": 0.1, "out": [1]}}},
    )
    for key, value in OTHER_DIVISION.items():
        other = {**config, "hardware": {**config["hardware"], key: value}}
        with pytest.raises(ConfigError, match=rf"hardware\.{key} changed"):
            checkpoint_of(other)
    for key, value in {"workers": 7, "threads": 7, "gradient_checkpointing": True}.items():
        assert checkpoint_of({**config, "hardware": {**config["hardware"], key: value}}).step == 10
    config = run_of(
        10, {"config.json": {}}, described={"denoiser": {"config": {"lune_dropout": 0.0}}}
    )
    assert checkpoint_of({**config, "hardware": {**config["hardware"], "devices": 7}}).step == 10


def test_a_named_run_without_checkpoint_starts_at_step_zero(config, capsys):
    assert checkpoint_of({**config, "resume": "auto"}) is None
    assert "starting at step 0" in capsys.readouterr().out


def test_resume_auto_requires_a_run_name(config):
    nameless = {**config, "resume": "auto", "overrides": ["steps=100"]}
    with pytest.raises(ConfigError, match="needs the name") as error:
        checkpoint_of(nameless)
    assert "run=NAME" in str(error.value)


def test_a_run_with_only_broken_checkpoints_is_refused(config, tmp_path):
    damaged = tmp_path / "checkpoints" / "step_0000010"
    damaged.mkdir(parents=True)
    (damaged / "manifest.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match="no checkpoint of the run is valid"):
        checkpoint_of({**config, "resume": "auto", "run_dir": str(tmp_path)})


def test_the_resume_command_repeats_the_launcher(config, monkeypatch):
    overrides = [
        "model=tiny",
        "resume=auto",
        "run=x",
        "steps=100",
        "callbacks.preview.prompts='[a, b]'",
    ]
    printed = command({**config, "overrides": overrides})
    line = "model=tiny steps=100 callbacks.preview.prompts='[a, b]' run=x resume=auto"
    assert printed == f"{interpreter.command('train.py')} {line}"
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert command(config).startswith("torchrun --nproc_per_node=2 train.py ")


def test_the_resume_command_keeps_configuration_and_run_folders(config, monkeypatch):
    flags = ["--config-dir", "'/my conf'", "--config-name", "mine"]
    printed = command({**config, "flags": flags})
    begun = interpreter.command("train.py")
    assert printed.startswith(f"{begun} --config-dir '/my conf' --config-name mine ")
    assert "hydra.run.dir" not in printed
    away = command({**config, "run_dir": "/elsewhere/my run"})
    assert " hydra.run.dir='/elsewhere/my run' " in away


def test_configuration_flags_are_passed_to_the_recipe(tmp_path, monkeypatch):
    from tinyflux_pl.app.cli.command_line import CONF, run

    (tmp_path / "my conf").mkdir()
    (tmp_path / "my conf" / "mine.yaml").write_text("defaults: [train, _self_]\n")
    seen = []
    words = ["-cd", str(tmp_path / "my conf"), "-cn", "mine", f"paths.root={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    run("train", lambda config: seen.append(config["flags"]) or 0, CONF)
    assert seen == [["-cd", f"'{tmp_path}/my conf'", "-cn", "mine"]]
    monkeypatch.setattr("sys.argv", ["train.py", *words, "hydra.mode=MULTIRUN"])
    run("train", lambda config: seen.append(config["flags"]) or 0, CONF)
    assert seen[1] == [*seen[0], "hydra.mode=RUN"], "the job is continued, not the sweep"


def test_a_branched_run_without_checkpoint_resumes_from_its_origin(config):
    begun = {**config, "resume": "outputs/old one/checkpoints/step_0000010"}
    assert command(begun).endswith("resume='outputs/old one/checkpoints/step_0000010'")


def test_a_sweeps_job_is_named_by_its_folder(config):
    job = {**config, "run_dir": f"{config['paths']['outputs']}/sweep-1/3"}
    assert " run=sweep-1/3 resume=auto" in command(job)


def test_an_interruption_prints_the_saved_step_and_the_resume_command(config, tmp_path):
    with pytest.raises(Interrupted) as error, continued_by({**config, "run_dir": str(tmp_path)}):
        raise Interrupted(signal.SIGTERM)
    assert "no step was taken yet" in str(error.value) and "resume=auto" in str(error.value)
    assert error.value.exit_code == 143


def test_only_rank_zero_prints_on_interruption(config, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as left, continued_by(config):
        raise Interrupted(signal.SIGTERM)
    assert left.value.code == 0 and capsys.readouterr() == ("", "")


@pytest.fixture
def run_of(config, tmp_path):
    """Makes `RUN/checkpoints/step_N`, under the configurations that the run was started with."""

    def write(step, started, folder=tmp_path / "run", described=None):
        saved = dict(
            step=step,
            config=described or {},
            weights={"w": torch.ones(1)},
            averaged=None,
            state=None,
        )
        directory.save(folder / "checkpoints" / f"step_{step:07d}", **saved)
        for name, changed in started.items():
            requested = {**copy.deepcopy(config), "from_step": 0, **changed}
            (folder / name).write_text(json.dumps(requested))
        return {**config, "resume": "auto", "run_dir": str(folder)}

    return write


def test_copies_of_a_configuration_file_are_ignored(run_of):
    config = run_of(
        10, {"config.json": {}, "config_old.json": {"seed": 7}, "config (copy).json": {"seed": 8}}
    )
    assert checkpoint_of(config).step == 10


def test_an_unreadable_configuration_is_refused_by_name(run_of, tmp_path):
    config = run_of(10, {"config.json": {}})
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read") as error:
        checkpoint_of(config)
    assert "resume_changed=true" in str(error.value)
    assert checkpoint_of({**config, "resume_changed": True}).step == 10


def test_a_configuration_is_numbered_after_the_last_one(run_of, tmp_path):
    config = run_of(
        10, {"config.json": {}, "config_1.json": {}, "config_2.json": {"seed": 3, "from_step": 8}}
    )
    (tmp_path / "run" / "config_1.json").unlink()
    report.save_configuration(schema.read(config, "train"), 10)
    assert json.loads((tmp_path / "run" / "config_2.json").read_text())["seed"] == 3
    assert json.loads((tmp_path / "run" / "config_3.json").read_text())["from_step"] == 10
    with pytest.raises(ConfigError, match="seed changed"):
        checkpoint_of(config)


def test_checkpoints_behind_a_link_belong_to_the_run(run_of, tmp_path):
    config = run_of(10, {"config.json": {}})
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "large disk")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "large disk")
    assert checkpoint_of(config).step == 10


def test_other_data_under_the_same_name_is_refused():
    class Checkpoint:
        path, config = "step_10", {"caches": {"shapes": "abc"}}

    resume.require_same_data(Checkpoint, {"shapes": "abc"}, allowed=False)
    resume.require_same_data(Checkpoint, {"shapes": "abd"}, allowed=True)
    with pytest.raises(ConfigError, match="other samples than are now in shapes"):
        resume.require_same_data(Checkpoint, {"shapes": "abd"}, allowed=False)
