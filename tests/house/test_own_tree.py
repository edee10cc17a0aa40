"""Subprocesses of tests import this tree, not the installed package."""

import subprocess
import sys
from pathlib import Path

import tinyflux_pl

PRINT = "import tinyflux_pl; print(tinyflux_pl.__file__)"


def test_a_script_in_another_folder_imports_the_tree_under_test(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINT)
    completed = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(completed.stdout.strip()) == Path(tinyflux_pl.__file__), completed.stderr


def test_the_tree_under_test_contains_these_tests():
    assert Path(tinyflux_pl.__file__).parents[1] == Path(__file__).parents[2]
