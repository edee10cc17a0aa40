"""Invalid arguments, files or environment print three lines and exit with code 2, no traceback."""

import gc
import io
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.app import kept_compositions, wrong_lines, wrong_values
from tinyflux_pl.app.cli import command_line, standard_streams
from tinyflux_pl.app.hardware import resolve_auto
from tinyflux_pl.config import build
from tinyflux_pl.core.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    HubError,
    TinyFluxError,
    UntrustedFile,
)

GROUPS = (
    "model",
    "data",
    "experts",
    "hardware",
    "codec",
    "text",
    "path",
    "sampler",
    "guidance",
    "logger",
    "optimizer",
)


class Accepted(TinyFluxError):
    """Stands for the run that a line would start."""

    exit_code = 99


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """(script, words) -> (exit code, stderr), in this process; no run goes beyond its checks."""
    monkeypatch.chdir(tmp_path)

    def reached(config):
        config = config.plain
        for name in (
            "timesteps",
            "schedule",
            "optimizer",
            "objective",
            "logger",
            "codec",
            "text",
            "path",
            "model",
        ):
            build.check_binds(config.get(name), (), name)
        for name, source in config["data"]["sources"].items() if "data" in config else ():
            build.check_binds(source["train"], (), f"data.sources.{name}.train")
        raise Accepted("a run would start", where="here", cure="nothing")

    monkeypatch.setattr("tinyflux_pl.app.components.Parts.from_config", reached)
    monkeypatch.setattr("tinyflux_pl.app.drawing.build_pipeline.pipeline", reached)
    monkeypatch.setattr(
        "tinyflux_pl.app.drawing.prompt_advice.captions_of", lambda checkpoint: None
    )
    monkeypatch.setattr("tinyflux_pl.app.hardware.set_up", lambda config: resolve_auto(config))
    gc.collect()
    gc.freeze()  # torch's objects are not looked through again at every composition

    def answered(script, *words):
        before = dict(os.environ)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", errors := io.StringIO())
        try:
            command_line.run(script)
        except SystemExit as end:
            return end.code, errors.getvalue()
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)
        return 0, errors.getvalue()

    yield answered
    gc.unfreeze()


def judged(answer, script, *words):
    """The defect of the output for a command line, or ""."""
    try:
        code, text = answer(script, *words)
    except BaseException as error:
        return f"{script} {words}: raised {type(error).__name__}: {error}"[:300]
    lines = text.strip().splitlines()
    three = (
        len(lines) == 3 and lines[1].startswith("  where: ") and lines[2].startswith("  do:    ")
    )
    return "" if code == 2 and three else f"{script} {words}: {code} {text.strip()[-400:]}"


REQUIRED = {"train": (), "extract": (), "generate": ("checkpoint=nowhere", "prompt=x")}


def cases(tmp_path):
    """(script, words) of every wrong input."""
    for script in ("train", "extract", "generate"):
        each = {"train": 1, "extract": 0, "generate": 2}[script]
        yield from (
            (script, *REQUIRED[script], line) for line in wrong_values.values(script, each) if each
        )
    for group in GROUPS:
        for choice in ("nothing", "[1]", "null"):
            yield ("train", f"{group}={choice}")
    for key in (
        "steps",
        "hardware.batch_size",
        "callbacks.ema.decay",
        "model.hidden_size",
        "data.image_size",
    ):
        yield from (("train", f"{slip}=1") for slip in wrong_values.slips(key))
    yield from (
        ("generate", *REQUIRED["generate"], f"{slip}=1") for slip in wrong_values.slips("height")
    )
    yield from (("train", *line.split(" ")) for line in wrong_lines.LINES)
    folder = tmp_path / "conf"
    for number, (name, text) in enumerate(wrong_values.FILES.items()):
        file = folder / str(number) / "experiment" / "odd.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"# @package _global_\n# {name}\n{text}")
        yield ("train", "--config-dir", str(file.parents[1]), "experiment=odd")
    for number, content in enumerate((b"\xff\xfe\x00", b"steps: \xe9\n", b"\x00", None)):
        file = folder / f"bytes{number}" / "experiment" / "odd.yaml"
        file.parent.mkdir(parents=True)
        file.mkdir() if content is None else file.write_bytes(content)
        yield ("train", "--config-dir", str(file.parents[1]), "experiment=odd")
    (tmp_path / "taken").write_text("x")
    for target in ("taken", "taken/below", "/proc/x", "a" * 300, "/dev/null"):
        yield ("generate", *REQUIRED["generate"], f"output={target}")
        yield ("train", f"paths.root={target}")
    yield from (
        ("generate", "checkpoint=x", *words)
        for words in ((), ("prompt=a", "prompt_file=b"), ("steps=3",))
    )
    yield ("extract", "optimizer.lr=1")
    yield ("extract", "epochs=3")


def test_every_invalid_input_prints_three_lines_and_exits_with_code_2(answer, tmp_path):
    """One in twenty lines is composed by Hydra from scratch; the others share compositions."""
    wrong, memory = [], {}
    for number, (script, *words) in enumerate(cases(tmp_path)):
        with nullcontext() if number % 20 == 0 else kept_compositions.kept(memory):
            wrong.append(judged(answer, script, *words))
    wrong = [message for message in wrong if message]
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


def test_valid_input_reaches_the_run(answer):
    """Else the test above would pass with everything refused."""
    for script, words in (
        ("train", ("steps=3", "experts=lune_sol")),
        ("generate", REQUIRED["generate"]),
        ("extract", ()),
    ):
        assert answer(script, *words)[0] == Accepted.exit_code


@pytest.mark.parametrize(
    "words",
    [
        ("train", "data.sources={}"),
        ("extract", "epochs=3"),
        ("generate", "checkpoint=x", "prompt=a", "n=word"),
    ],
)
def test_a_subprocess_prints_the_same_refusal(tmp_path, words):
    script, *line = words
    overrides = [sys.executable, str(kept_compositions.CONF.parent / f"{script}.py"), *line]
    completed = subprocess.run(overrides, capture_output=True, text=True, cwd=tmp_path)
    lines = completed.stderr.strip().splitlines()
    assert (
        completed.returncode == 2
        and len(lines) == 3
        and not completed.stdout
        and not list(tmp_path.iterdir())
    )


ENVIRONMENT = [
    ("RANK", "first"),
    ("LOCAL_RANK", "x"),
    ("NODE_RANK", "-"),
    ("SLURM_NTASKS", "two"),
]


@pytest.mark.parametrize(("name", "value"), ENVIRONMENT)
def test_a_nonnumeric_environment_variable_is_refused_by_name(answer, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not judged(answer, "train", "steps=1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HYDRA_FULL_ERROR", "0"),
        ("HOME", ""),
        ("COLUMNS", "x"),
        ("TERM", "dumb"),
        ("TMPDIR", "/nowhere"),
    ],
)
def test_an_unusual_environment_does_not_change_the_output(answer, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not judged(answer, "train", "steps=none")
    assert answer("train", "steps=3")[0] == Accepted.exit_code


@pytest.mark.parametrize("kind", [CheckpointMismatch, CorruptCheckpoint, HubError, UntrustedFile])
def test_an_invalid_file_or_repository_exits_with_code_2(kind):
    assert kind("no such weights").exit_code == 2


def test_arguments_are_utf_8_in_any_locale():
    assert standard_streams.decoded(["prompt=café", "n=1"]) == ["prompt=café", "n=1"]
    broken = "caf\udce9"
    with pytest.raises(TinyFluxError, match="not UTF-8") as caught:
        standard_streams.decoded([broken])
    assert str(caught.value).isascii() and Path.cwd()
