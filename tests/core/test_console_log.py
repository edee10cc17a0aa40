"""Warnings that are logged while a bar runs have lines of their own."""

import io
import logging
import sys

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
