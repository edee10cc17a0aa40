"""Warnings that come while a bar runs, logged or Python's, have lines of their own."""

import io
import logging
import sys
import warnings

import pytest

from tinyflux_pl.app.cli.command_line import _run_recipe
from tinyflux_pl.core import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def one_terminal(monkeypatch):
    """Both streams on one terminal, and no handler but those that a test adds."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return terminal


def console(level=logging.NOTSET):
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    handler.setLevel(level)
    logging.getLogger().addHandler(handler)


def test_a_warning_stands_above_the_bar(monkeypatch):
    terminal = one_terminal(monkeypatch)
    console()
    with progress.bar("train", 10, "step") as bar:
        bar.update(3)
        bar.refresh()
        logging.getLogger("tinyflux_pl.guard").warning("step 3 was skipped")
        before, line, after = terminal.getvalue().partition("[WARNING] step 3 was skipped\n")
    assert line and before.endswith("\r")  # the bar's line was cleared
    assert "train:" in after  # and is drawn again below


def test_a_console_that_is_configured_later_is_kept_out_of_the_next_bar(monkeypatch):
    terminal = one_terminal(monkeypatch)
    with progress.bar("encode", 1, "image"):
        pass
    console()
    with progress.bar("train", 1, "step") as bar:
        bar.refresh()
        logging.warning("late")
        assert terminal.getvalue().partition("[WARNING] late\n")[0].endswith("\r")


def test_levels_and_other_handlers_stay_as_they_are(monkeypatch, tmp_path):
    terminal = one_terminal(monkeypatch)
    console(logging.ERROR)
    file = logging.FileHandler(tmp_path / "run.log")
    elsewhere = io.StringIO()
    other = logging.StreamHandler(elsewhere)
    logging.getLogger().handlers += [file, other]
    with progress.bar("train", 1, "step"):
        logging.warning("quiet")
    file.close()
    assert logging.getLogger().handlers[1:] == [file, other]
    assert "quiet" not in terminal.getvalue()
    assert "quiet" in elsewhere.getvalue() and "quiet" in (tmp_path / "run.log").read_text()


def recipe_with_a_bar(work):
    """A recipe that works below a bar, as the entry scripts call theirs."""

    def recipe(config):
        with progress.bar("train", 10, "step") as bar:
            bar.update(3)
            bar.refresh()
            work()

    return lambda: _run_recipe(recipe, {"run_dir": "outputs"})


@pytest.fixture
def showing(monkeypatch):
    """Warnings are shown, where pytest records them."""
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = printed_by_python
        yield


def printed_by_python(message, category, filename, lineno, file=None, line=None):
    (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def test_a_python_warning_stands_once_on_one_line_above_the_bar(monkeypatch, showing):
    terminal = one_terminal(monkeypatch)

    def work():
        for _ in range(3):
            warnings.warn("the caption\nis cut at 8 of \x1b 10", stacklevel=1)  # the code
            with warnings.catch_warnings():  # after which Python forgets that it has warned
                warnings.simplefilter("ignore")

    recipe_with_a_bar(work)()
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().splitlines()]
    (line,) = [line for line in lines if "caption" in line]
    start = "warning: the caption is cut at 8 of \\x1b 10 (UserWarning, test_console_log.py:"
    assert line.startswith(start) and line.endswith(")")
    assert "the code" not in terminal.getvalue() and "train:" in lines[-1]


def test_with_w_options_python_decides_how_often_a_warning_is_repeated(monkeypatch, showing):
    terminal = one_terminal(monkeypatch)
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    warnings.simplefilter("always")
    recipe_with_a_bar(lambda: [warnings.warn("again", stacklevel=1) for _ in range(3)])()
    assert terminal.getvalue().count("warning: again") == 3


def test_recorders_and_files_of_warnings_are_left_alone(monkeypatch, showing):
    terminal, file = one_terminal(monkeypatch), io.TextIOWrapper(io.BytesIO(), write_through=True)

    def work():
        with pytest.warns(UserWarning, match="recorded"):
            warnings.warn("recorded", stacklevel=1)
        warnings.showwarning("for a file", UserWarning, __file__, 1, file)

    before = warnings.showwarning
    recipe_with_a_bar(work)()
    assert warnings.showwarning is before
    assert "for a file" in file.buffer.getvalue().decode()
    assert "recorded" not in terminal.getvalue() and "for a file" not in terminal.getvalue()
