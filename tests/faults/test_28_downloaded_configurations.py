"""Fault 28: a downloaded folder of configurations runs and overwrites nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import forks
from tests.faults.conftest import FULL
from tests.faults.hostile_configurations import EXPERIMENTS, FOLDERS
from tinyflux_pl.app.cli.command_line import run

QUICK = (
    "a filter of a sweep",
    "an environment of a sweep",
    "a formatter that is a file",
    "by a package",
)
FLAGS = (["--hydra-help"], ["--info", "all"], ["--cfg", "hydra"], ["--help"], ["--multirun"])


def files_of(folder: Path, name: str) -> dict[str, str]:
    """The files of an attack, its marker and victim named."""
    if name in FOLDERS:
        contents = dict(FOLDERS[name])
    else:
        contents = {
            "experiment/evil.yaml": f"# @package _global_\n{json.dumps(EXPERIMENTS[name])}\n"
        }
    paths = {"MARKER": folder / "marker", "VICTIM": folder / "victim"}
    for word, location in paths.items():
        contents = {file: text.replace(word, str(location)) for file, text in contents.items()}
    return contents


def attacked(folder: Path, name: str, flags: list[str]) -> tuple[forks.Ended, list[str]]:
    """Exit code and output of the command, and the files that the attack reached."""
    for file, text in files_of(folder, name).items():
        (folder / "conf" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / file).write_text(text)
    (folder / "evil_module.py").write_text(
        f"open({str(folder / 'marker')!r}, 'w').close()\nCLASS = int\n"
    )
    victims = [folder / "victim", folder / "victim.log"]
    for victim in victims:
        victim.write_text("mine")
    reached: list[Any] = []

    def recipe(config: dict[str, Any]) -> int:
        (folder / "reached").write_text(config["run_dir"])
        return 0

    def work() -> None:
        import os

        os.environ["EVIL"] = "evil_module.CLASS"
        sys.path.insert(0, str(folder))
        words = ["--config-dir", str(folder / "conf"), f"paths.root={folder}/root"]
        typed = (folder / "conf" / "hydra" / "hydra_logging").exists()
        chosen = "hydra/hydra_logging=evil" if typed else "experiment=evil"
        sys.argv = ["train.py", *flags, *words[: 2 if "--hydra-help" in flags else 3], chosen]
        run("train", recipe)

    ended = forks.run(work, folder / "printed.log")
    reached += [path.name for path in (folder / "marker", folder / "reached") if path.exists()]
    reached += [v.name for v in victims if not v.is_file() or v.read_text() != "mine"]
    return ended, reached


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    import hydra._internal.hydra  # noqa: F401

    import tinyflux_pl.config.suggest  # noqa: F401


def test_a_downloaded_folder_of_configurations_runs_nothing(tmp_path, figure):
    names = [*EXPERIMENTS, *FOLDERS] if FULL else list(QUICK)
    failed = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended, reached = attacked(folder, name, [])
        if reached or ended.code != 2 or "Traceback" in ended.printed:
            failed.append(f"{name}: {reached} {ended.code} {ended.printed[-600:]}")
    failures = "; ".join(failed)
    figure(
        28, "a downloaded folder of configurations", len(names) - len(failed), len(names), failures
    )


@pytest.mark.parametrize("flags", FLAGS if FULL else FLAGS[:1], ids=" ".join)
def test_no_flag_returns_before_the_configuration_is_checked(tmp_path, figure, flags):
    ended, reached = attacked(tmp_path, "by a choice that is typed", flags)
    assert not reached, ended.printed
    figure(
        28,
        f"a downloaded folder, {' '.join(flags)}",
        int(ended.code == 2 and "may not build" in ended.printed),
        1,
    )


def test_a_sweep_of_a_harmless_file_still_runs(tmp_path):
    EXPERIMENTS["harmless"] = {
        "hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"seed": "1,2"}}}
    }
    ended, reached = attacked(tmp_path, "harmless", [])
    assert ended.code == 0 and reached == ["reached"], ended.printed
    assert (tmp_path / "reached").read_text().endswith("1"), "the folder of the second job"
