"""What tests start as another process is this tree, not the package that is installed."""

import subprocess
import sys
from pathlib import Path

import tinyflux_pl

PRINT = "import tinyflux_pl; print(tinyflux_pl.__file__)"


def test_a_script_that_lies_elsewhere_imports_the_tree_under_test(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(done.stdout.strip()) == Path(tinyflux_pl.__file__), done.stderr


def test_the_tree_under_test_is_the_one_that_the_tests_lie_in():
    assert Path(tinyflux_pl.__file__).parents[1] == Path(__file__).parents[2]
