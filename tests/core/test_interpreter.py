"""The commands that messages print run as they stand."""

import sys

import pytest

from tinyflux_pl.core import interpreter


@pytest.mark.parametrize(
    ("running", "printed"),
    [
        ("train.py", "python generate.py"),
        ("/a/clone/train.py", "python /a/clone/generate.py"),
        ("../a clone/extract.py", "python '../a clone/generate.py'"),
        ("/usr/bin/pytest", "python generate.py"),
    ],
)
def test_a_command_names_the_script_in_the_folder_of_the_running_one(monkeypatch, running, printed):
    monkeypatch.setattr(sys, "argv", [running])
    monkeypatch.setattr(sys, "executable", "")  # an interpreter without a name
    assert interpreter.command("generate.py") == printed
