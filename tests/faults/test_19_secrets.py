"""Fault 19: secrets of a failing run are in no byte it leaves and in no configuration."""

from __future__ import annotations

import base64
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from tests.app.runs import SHAPES
from tests.faults import forks
from tests.faults.conftest import FULL
from tinyflux_pl.app.cli.command_line import run
from tinyflux_pl.core.errors import DataError

# put together here, so that no scanner takes this file for a leak
SECRETS = {
    "SOME_SERVICE_TOKEN": "sentinel+of/the" + "environment=",
    "WANDB_API_KEY": "5ec2e7" * 6 + "5ec2",
    "HF_TOKEN": "hf_" + "SentinelOfTheHubSentinelOfTheHub",
    "HTTPS_PROXY": "sentinel-" + "of-a-login",
}
LOGIN = f"http://bot:{SECRETS['HTTPS_PROXY']}@proxy.invalid:3128/a"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, LOGIN if name == "HTTPS_PROXY" else value)
    for name in ("WANDB_CONSOLE", "WANDB_MODE", "HYDRA_FULL_ERROR", "TINYFLUX_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def forms(secret: str) -> list[bytes]:
    """A secret as it is, as an address writes it, as a basic login sends it."""
    return [
        secret.encode(),
        quote(secret, safe="").encode(),
        base64.b64encode(secret.encode()).rstrip(b"="),
    ]


def leaks(folder: Path) -> list[str]:
    """secret: file, for every file or folder that contains or is named after one, PNG text too."""
    leaked = []
    for path in folder.rglob("*"):
        content = str(path.relative_to(folder)).encode() + (
            path.read_bytes() if path.is_file() else b""
        )
        if path.suffix == ".png":
            with Image.open(path) as image:
                content += repr(image.info).encode()
        leaked += [
            f"{name}: {path.name}"
            for name, value in SECRETS.items()
            if any(f in content for f in forms(value))
        ]
    return leaked


def babble() -> None:
    """Log secrets as libraries do, without failing."""
    message = f"cannot reach {LOGIN} with {' and '.join(SECRETS.values())}"
    logging.getLogger("some.library").warning("retry: %s", message)
    warnings.warn(message, stacklevel=2)
    print(message)
    print(message, file=sys.stderr)
    try:
        raise ConnectionError(message)
    except ConnectionError:
        traceback.print_exc()
        logging.getLogger("some.library").exception("failed")
    thread = threading.Thread(target=exec, args=(f"raise OSError({message!r})",))
    thread.start()
    thread.join()

    class Dying:
        def __del__(self) -> None:
            raise OSError(message)

    Dying()


def failing(error: Callable[[str], Exception]) -> Callable[..., None]:
    """A training step that fails at its sixth call with secrets in error, cause and note."""
    from tinyflux_pl.training.flow_module import FlowModule

    usual, calls = FlowModule.training_step, []

    def step(self: FlowModule, *arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) < 6:
            return usual(self, *arguments, **named)
        babble()
        try:
            raise ConnectionError(
                f"401 from {LOGIN}, Authorization: Bearer {SECRETS['SOME_SERVICE_TOKEN']}"
            )
        except ConnectionError as cause:
            failure = error(f"upload failed: {list(SECRETS.values())}")
            failure.add_note(f"tried {SECRETS['HF_TOKEN']}")
            raise failure from cause

    return step


def fails(folder: Path, error: Callable[[str], Exception], words: list[str]) -> forks.Ended:
    def work() -> None:
        from tinyflux_pl.training.flow_module import FlowModule

        FlowModule.training_step = failing(error)
        board = (
            "{_target_: lightning.pytorch.loggers.TensorBoardLogger, save_dir: x, name: '', "
            "version: tensorboard}"
        )
        loggers = ["logger=wandb", f"+logger.tensorboard={board}"]
        overrides = ["debug=fast", "preflight=false", *SHAPES, f"paths.root={folder}", "run=x"]
        sys.argv = ["train.py", *overrides, *loggers, *words]
        run("train")

    return forks.run(work, folder / "printed.log", timeout=300)


KINDS = {  # how it fails, and how it was started
    "a library's error": (RuntimeError, {}, []),
    "an error of ours": (DataError, {"TINYFLUX_DEBUG": "1"}, []),
    "in a sweep": (RuntimeError, {"TINYFLUX_DEBUG": "1"}, ["--multirun", "seed=0"]),
}


@pytest.mark.parametrize("kind", KINDS if FULL else ["a library's error"])
def test_no_secret_in_any_byte_of_a_failing_run(tmp_path, monkeypatch, figure, kind):
    error, variables, words = KINDS[kind]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = fails(tmp_path, error, words)
    assert ended.code == 1 and "upload failed" in ended.printed and "401 from" in ended.printed, (
        ended.printed
    )
    assert ended.printed.count("cannot reach") >= 6, "libraries were heard"
    names = {path.name for path in tmp_path.rglob("*")}
    kept = {"config.json", "manifest.json", "metrics.csv", "train.log"}
    assert (
        kept <= names
        and any(n.startswith("events.out") for n in names)
        and any(n.endswith(".wandb") for n in names)
    )
    leaked = leaks(tmp_path)
    hidden = len(SECRETS) - len({leak.split(":")[0] for leak in leaked})
    figure(19, f"4 secrets through a failing run: {kind}", hidden, len(SECRETS), "; ".join(leaked))


WORDS = {
    "SOME_SERVICE_TOKEN": "+a={b: [1, {c: 'x VALUE y'}]}",
    "WANDB_API_KEY": "run='VALUE'",
    "HF_TOKEN": "+note=${oc.env:HF_TOKEN}",
    "HTTPS_PROXY": "+note='LOGIN'",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_secret_in_the_configuration_is_refused_before_anything_is_written(tmp_path, name):
    def work() -> None:
        word = WORDS[name].replace("VALUE", SECRETS[name]).replace("LOGIN", LOGIN)
        sys.argv = ["train.py", "debug=fast", f"paths.root={tmp_path}", word]
        run("train")

    ended = forks.run(work, tmp_path / "printed.log")
    assert ended.code == 2 and "the configuration contains a secret" in ended.printed, ended.printed
    assert not leaks(tmp_path) and not list(tmp_path.glob("**/config.json"))


# where Hydra makes folders and files before a run could refuse, and what its logs would hold
NAMING = {
    "the run's folder": "run=${oc.env:HF_TOKEN}",
    "the folder itself": "hydra.run.dir=${paths.root}/${oc.env:SOME_SERVICE_TOKEN}",
    "the job's name": "hydra.job.name=${oc.env:HF_TOKEN}",
    "its log": "hydra.job_logging.formatters.simple.format='${oc.env:WANDB_API_KEY}'",
    "a sweep's folder": "hydra.sweep.dir=${paths.root}/${oc.env:HF_TOKEN}",
    "a job's folder": "hydra.sweep.subdir=${hydra.job.num}_${oc.env:HF_TOKEN}",
    "decoded": "run=${oc.decode:${oc.env:HF_TOKEN}}",
    "a key": "+a={KEY: 1}",
}


def test_a_refused_run_names_no_folder_after_a_secret(tmp_path, figure):
    refused = []
    for position in NAMING if FULL else ("the run's folder", "its log", "a job's folder", "a key"):
        folder = tmp_path / str(len(refused))
        folder.mkdir()

        def work(folder: Path = folder, position: str = position) -> None:
            sweep = (
                ["--multirun", "seed=0"]
                if position.startswith("a ") and position != "a key"
                else []
            )
            word = (
                NAMING[position].replace("KEY", SECRETS["HF_TOKEN"])
                if position == "a key"
                else NAMING[position]
            )
            sys.argv = ["train.py", *sweep, "debug=fast", f"paths.root={folder}", word]
            run("train")

        ended = forks.run(work, tmp_path / f"{len(refused)}.log")
        names = [str(path) for path in folder.rglob("*")]
        is_refused = ended.code == 2 and "the configuration contains a secret" in ended.printed
        named = [name for name in names if any(secret in name for secret in SECRETS.values())]
        refused.append(is_refused and not leaks(tmp_path) and not named)
    figure(19, "secrets in names that Hydra makes", sum(refused), len(refused))


def test_secrets_are_read_from_the_environment_alone(monkeypatch):
    from tinyflux_pl.config import redact

    assert all(redact.redact(f"<{value}>") == "<***>" for value in SECRETS.values())
    assert os.environ["HF_TOKEN"] == SECRETS["HF_TOKEN"], "it stays there, for the hub's own client"
