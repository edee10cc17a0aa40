"""Secrets are masked in what a process writes: streams, logs, tracebacks and the copied console."""

import io
import logging
import os
import subprocess
import sys
import threading

import pytest

from tinyflux_pl.config import redact


def test_streams_are_masked_write_by_write_and_are_otherwise_themselves(monkeypatch):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    under = io.StringIO()
    stream = redact.Masked(under)
    print("a sentinel-secret", 3, file=stream)
    stream.writelines(["b sentinel-secret\n", "\x1b[1mbold\r"])
    assert under.getvalue() == "a *** 3\nb ***\n\x1b[1mbold\r"
    assert (
        stream.write("sentinel-secret") == 15
        and stream.getvalue() is not None
        and not stream.isatty()
    )


@pytest.fixture
def installed():
    kept = (
        logging.getLogRecordFactory(),
        sys.excepthook,
        threading.excepthook,
        sys.stdout,
        sys.stderr,
    )
    redact.install()
    redact.install()
    assert isinstance(sys.stdout, redact.Masked) and sys.stdout.stream is kept[3]
    yield
    logging.setLogRecordFactory(kept[0])
    sys.excepthook, threading.excepthook, sys.stdout, sys.stderr = kept[1:]


def test_log_records_of_any_logger_are_masked(monkeypatch, installed, caplog):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    log = logging.getLogger("some.library")
    log.error("sent %s to %d", "sentinel-secret", 3)
    log.error("a caption: \x1b[2J\u202e")
    try:
        raise ValueError("holds sentinel-secret")
    except ValueError:
        log.exception("failed")
    assert "sent *** to 3" in caplog.text and "ValueError: holds ***" in caplog.text
    assert "sentinel-secret" not in caplog.text and r"a caption: \x1b[2J\u202e" in caplog.text


CRASH = """
import sys, threading, logging
from tinyflux_pl.config import redact
redact.install()
def crash(): raise RuntimeError("with sentinel-secret")
thread = threading.Thread(target=crash); thread.start(); thread.join()
logging.error("two %s, one given: %s", "sentinel-secret")
crash()
"""


def test_uncaught_errors_of_program_and_threads_are_masked(tmp_path):
    file = tmp_path / "crash.py"
    file.write_text(CRASH)
    secret = {"X_TOKEN": "sentinel-secret"}
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, env={**os.environ, **secret}
    )
    assert done.returncode == 1 and done.stderr.count("RuntimeError: with ***") == 2
    assert "sentinel-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(("own", "expected"), [(None, "off"), ("wrap", "wrap")])
def test_the_console_is_not_copied_before_it_is_masked_unless_the_user_says_so(own, expected):
    program = (
        "import os; from tinyflux_pl.config import redact; redact.install(); "
        "print(os.environ['WANDB_CONSOLE'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_CONSOLE"}
    environment |= {} if own is None else {"WANDB_CONSOLE": own}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout == f"{expected}\n", done.stderr


LOUD = """
import sys, threading
from tinyflux_pl.config import redact
redact.install()
print("out sentinel-secret")
print("err sentinel-secret", file=sys.stderr)
sys.stderr.writelines(["lines sentinel-secret"])
def crash(): raise RuntimeError("a caption: \\x1b[2J")
thread = threading.Thread(target=crash); thread.start(); thread.join()
crash()
"""


def test_both_streams_are_masked_and_no_uncaught_error_acts_on_the_terminal():
    environment = {
        **os.environ,
        "X_TOKEN": "sentinel-secret",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOUD], capture_output=True, text=True, env=environment
    )
    assert "out ***" in done.stdout and "err ***" in done.stderr and "lines ***" in done.stderr
    assert "sentinel-secret" not in done.stdout + done.stderr
    assert done.stderr.count(r"RuntimeError: a caption: \x1b[2J") == 2 and "\x1b" not in done.stderr
