"""Forbidden: vague names, a second time convention, family tests, pickles, swallowed errors."""

import ast
import os
import re
import tokenize
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from tests.house import source

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "stuff"}
# Path owns the clock: `1 - t` in any other file is a second one, and so is arithmetic with t_noise
# or t_data. Networks may hold the reference's own formula.
CLOCK = re.compile(
    r"\b1(?:\.0?)?\s*-\s*(?:t|time|timesteps?)\b(?!\s*[\w(\[.])"
    r"|\bt_(?:noise|data)\s*[-+*/]|[-+*/]\s*(?:\w+\s*\.\s*)*t_(?:noise|data)\b"
)
OWNS_THE_CLOCK = ("diffusion", "nets")
FAMILY = re.compile(
    r"\b(?:family|model_type|model_family|arch)\b\s*(?:==|!=|in\b)|\bmatch\s+\S*family\b"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
LOCATION = re.compile(
    r"(?<![\w.])/(?:work|home|root|opt|mnt|data)/\w|file:///|https?://(?:localhost|127\.|10\.|192\.168\.)"
)
TEXTS = ("*.py", "*.yaml", "*.md", "*.toml", "*.txt", "Makefile", "run")
SKIPPED = {
    ".venv",
    ".git",
    "outputs",
    "cache",
    "multirun",
    "wandb",
    "shared",
    ".pytest_cache",
    ".ruff_cache",
}


def code_lines(file: Path):
    """(line number, code without comments and strings) of a Python file."""
    lines: dict[int, list[str]] = {}
    with file.open("rb") as handle:
        for token in tokenize.tokenize(handle.readline):
            if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER):
                lines.setdefault(token.start[0], []).append(token.string)
    return ((number, " ".join(words)) for number, words in sorted(lines.items()))


def offences(pattern: re.Pattern[str], outside: tuple[str, ...] = ()) -> list[str]:
    """Where code of the package matches."""
    return [
        f"{source.name(file)}:{number}: {line}"
        for file in source.files()
        if source.package(source.module_of(file)) not in outside
        for number, line in code_lines(file)
        if pattern.search(line)
    ]


@cache
def project_texts() -> list[Path]:
    """Every text file of the project that a reader may open."""
    files = []
    for folder, inner, names in os.walk(source.ROOT):
        kept = SKIPPED if Path(folder) == source.ROOT else SKIPPED - {"cache"}
        inner[:] = [n for n in inner if n not in kept and not n.endswith(".egg-info")]
        files += [Path(folder, n) for n in names if any(fnmatch(n, pattern) for pattern in TEXTS)]
    return sorted(files)


def calls(file: Path):
    """(dotted name, call) of every call in a file."""
    for node in ast.walk(source.tree(file)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_file_has_a_vague_name():
    vague = [source.name(p) for p in source.PACKAGE.rglob("*") if p.stem.lower() in VAGUE]
    assert not vague, vague


def test_the_path_alone_owns_the_clock():
    assert not (wrong := offences(CLOCK, outside=OWNS_THE_CLOCK)), "\n".join(wrong)


def test_no_code_branches_on_the_family():
    assert not (wrong := offences(FAMILY)), "\n".join(wrong)


def test_nothing_is_unpickled():
    wrong = []
    for file in source.files():
        wrong += [
            f"{source.name(file)}:{line}: {module}"
            for module, line, _ in source.imports(file)
            if module.split(".")[0]
            in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
        ]
        for name, call in calls(file):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            location = f"{source.name(file)}:{call.lineno}: {name}"
            if (
                name in ("torch.load", "load_from_checkpoint")
                and keywords.get("weights_only") != "True"
            ):
                wrong.append(f"{location} without weights_only=True")
            if (
                keywords.get("allow_pickle", "False") != "False"
                or keywords.get("trust_remote_code", "False") != "False"
            ):
                wrong.append(f"{location} trusts a file")
            if name in ("eval", "exec"):
                wrong.append(location)
    assert not wrong, "\n".join(wrong)


def test_no_exception_is_swallowed_and_loading_is_strict():
    wrong = []
    for file in source.files():
        for node in ast.walk(source.tree(file)):
            if isinstance(node, ast.ExceptHandler):
                everything = node.type is None or ast.unparse(node.type) in (
                    "Exception",
                    "BaseException",
                )
                handled = (
                    any(isinstance(n, ast.Raise) for n in ast.walk(node)) or node.name is not None
                )
                if node.type is None or (everything and not handled):
                    wrong.append(f"{source.name(file)}:{node.lineno}: except without a type")
        for name, call in calls(file):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if name.endswith("load_state_dict") and keywords.get("strict") == "False":
                wrong.append(f"{source.name(file)}:{call.lineno}: strict=False")
    assert not wrong, "\n".join(wrong)


def test_no_marker_of_unfinished_work_is_left():
    here = Path(__file__)
    wrong = [
        f"{source.name(file)}:{number}: {line.strip()}"
        for file in project_texts()
        if file != here
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    for file in source.files():
        wrong += [
            f"{source.name(file)}:{node.lineno}: NotImplementedError"
            for node in ast.walk(source.tree(file))
            if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)
        ]
    assert not wrong, "\n".join(wrong)


def test_no_machine_or_path_is_named():
    here = Path(__file__)
    wrong = [
        f"{source.name(file)}:{number}: {line.strip()[:100]}"
        for file in project_texts()
        if file != here and "tests" not in file.relative_to(source.ROOT).parts
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if LOCATION.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "x = 1 - t",
        "sigma = 1.0 - t",
        "1. - t ,",
        "( 1 - timestep )",
        "1 - time",
        "t - self . path . t_noise",
        "path . t_data - x",
    ],
)
def test_a_second_time_convention_is_detected(line):
    assert CLOCK.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "1 - text_mask",
        "1 - t_mask",
        "1 - threshold",
        "11 - t",
        "1 - t . alpha",
        "n1 - t",
        "path . t_noise , 1 - x",
    ],
)
def test_other_arithmetic_is_not_taken_for_a_time_convention(line):
    assert not CLOCK.search(line)
