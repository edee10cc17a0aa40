"""Printed tables: paths are never wrapped, and labels precede their texts."""

import sys

from tinyflux_pl.app.reporting import report, tables
from tinyflux_pl.core import interpreter

LONG = "/a/very/long/path/" + "x" * 200 + "/step_0001500"


def test_a_path_is_never_wrapped_at_any_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    tables.show(
        "title", [("checkpoint", LONG), ("note", "many words " * 10), ("two", f"one\nin {LONG} it")]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title" and sum(LONG in line for line in lines) == 2
    assert all(len(line) <= 40 for line in lines if LONG not in line)


def test_control_characters_are_escaped_and_markup_is_printed_as_text(capsys):
    tables.show("t", [("a", "\x1b[31m [bold]x[/bold]")])
    tables.line("[red]y")
    output = capsys.readouterr().out
    assert "\\x1b[31m [bold]x[/bold]" in output and "[red]y" in output


def test_commands_name_the_running_interpreter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert interpreter.command("generate.py") == ".venv/bin/python generate.py"
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python3")
    assert interpreter.command("generate.py") == "'/opt/my python/bin/python3' generate.py"


def test_the_final_line_is_a_runnable_command_with_the_full_checkpoint_path(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    report.results(RESULTS, tmp_path)
    output = capsys.readouterr().out.splitlines()
    line = next(line for line in output if line.startswith("next: "))
    assert (
        line.startswith("next: bin/python generate.py ")
        and f"checkpoint={LONG}" in line
        and "n=4" in line
    )
    text = " ".join(" ".join(output).split())
    assert "5 parameters, 2 of them trained, 3 steps on data=shapes" in text
    assert "never seen" in text and sum(LONG in line for line in output) == 2


RESULTS = {
    "images_per_second": 10.0,
    "parameters": 5,
    "trained_parameters": 2,
    "steps": 3,
    "data": "shapes",
    "experts": [],
    "seconds": 3.0,
    "peak_memory_bytes": 2**30,
    "validation_loss": 0.5,
    "accuracies": {
        "shapes/train": {"all": 0.5, "colour": 1.0},
        "shapes/held_out": {"all": 0.25, "colour": 0.5},
    },
    "novelty": {},
    "skipped": [],
    "samples": "samples/step.png",
    "checkpoint": LONG,
    "prompts": ["a red circle"],
}
