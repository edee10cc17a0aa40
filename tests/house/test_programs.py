"""Every program of its own keeps warnings above its bars, as the three scripts do."""

import ast
import warnings

from tests.house import source
from tinyflux_pl.core import progress
from tinyflux_pl.report import __main__ as report_program

GUARD = "__name__ == '__main__'"
DECORATOR = "warnings_above_bars()"


def programs():
    """Files of the package and the benchmarks that run when they are named to python -m."""
    for folder in ("tinyflux_pl", "benchmarks"):
        for file in sorted((source.ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
            if GUARD in tests:
                yield file, tree


def decorators_of_main(tree):
    """The decorators of the function `main`."""
    mains = [node for node in tree.body if getattr(node, "name", "") == "main"]
    return [ast.unparse(each) for node in mains for each in node.decorator_list]


def test_each_main_function_keeps_warnings_above_bars():
    files = list(programs())
    assert len(files) > 5
    bare = [source.name(file) for file, tree in files if DECORATOR not in decorators_of_main(tree)]
    assert not bare, "decorate main with core.console_log.warnings_above_bars()"


def test_a_warning_of_a_program_has_a_line_of_its_own(monkeypatch, capsys, tmp_path):
    def write(folder, baseline):
        with progress.bar("report", 3, "page") as bar:
            bar.refresh()
            warnings.warn("a figure is missing", stacklevel=1)
        return folder / "report.html"

    monkeypatch.setattr(report_program, "_write", write)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert report_program.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("warning: a figure is missing (UserWarning, ") for line in lines)
