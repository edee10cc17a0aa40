"""`--help`: each script's own page, from conf/ alone, at once."""

import subprocess
import sys

import pytest

from tests.app.runs import CONF
from tinyflux_pl.app.cli import help_text

SCRIPTS = ("train", "extract", "generate")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_every_key_and_every_choice(script):
    page = help_text.help_page(script, [CONF])
    lines = (CONF / f"{script}.yaml").read_text().splitlines()
    keys = list(help_text.script_keys(lines))
    assert keys and all(word for _, _, word in keys), [key for key, _, word in keys if not word]
    for group, chosen in help_text.groups(lines):
        offered = help_text.choices([CONF], group)
        assert offered and all(word for _, word in offered), (
            group,
            [n for n, word in offered if not word],
        )
        assert f"{group}={'NAME' if chosen == 'null' else chosen}" in page
    assert page.count(f"\n  python {script}.py ") == 3 and page.startswith(
        f"usage: python {script}.py"
    )
    assert all(len(line) <= 110 for line in page.splitlines())


def test_help_lists_only_keys_that_the_script_reads():
    pages = {script: help_text.help_page(script, [CONF]) for script in SCRIPTS}
    assert "\n  resume=null" in pages["train"] and "\n  doctor=null" in pages["extract"]
    assert "\n  prompt=null" in pages["generate"] and "\noptimizer=" in pages["train"]
    for absent in ("\noptimizer=", "\nschedule=", "\nlogger=", "\n  steps="):
        assert absent not in pages["extract"] + pages["generate"]
    assert "as_trained" in pages["generate"] and "as_trained" not in pages["train"]


def test_help_lists_choices_of_a_user_config_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "# @package _global_\n# My own network.\nmodel: {}\n"
    )
    page = help_text.help_page("train", [CONF, tmp_path])
    assert "  mine" in page and "My own network." in page


PAGE = """
import sys
from tinyflux_pl.app.cli.command_line import run
sys.argv = ["train.py", "--help"]
run("train")
slow = {"torch", "hydra", "lightning", "numpy", "omegaconf"} & set(sys.modules)
assert not slow, slow
"""


def test_help_imports_neither_torch_nor_hydra():
    completed = subprocess.run(
        [sys.executable, "-c", PAGE], capture_output=True, text=True, cwd=CONF.parent
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("usage: python train.py")


def test_an_invalid_word_next_to_help_is_still_refused():
    line = [sys.executable, str(CONF.parent / "train.py"), "--help", "model=tinny"]
    completed = subprocess.run(line, capture_output=True, text=True, cwd=CONF.parent)
    assert completed.returncode == 2 and "did you mean tiny?" in completed.stderr


def test_a_reader_that_leaves_ends_the_page_without_a_traceback():
    line = [sys.executable, "train.py", "--help"]
    actual = subprocess.Popen(
        line, cwd=CONF.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    actual.stdout.close()  # before the page is written
    assert (actual.stderr.read(), actual.wait()) == ("", 141)
    actual.stderr.close()
