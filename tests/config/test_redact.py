"""Secrets of the environment and of known shapes appear nowhere; everything else appears as it
is.
"""

import io
import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from tinyflux_pl.config import redact
from tinyflux_pl.core.errors import ConfigError

# put together here, so that no scanner takes this file for a leak
HF = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"
WANDB = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "HF_TOKEN",
            "WANDB_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASSWORD",
            "MY_SECRETS",
            "APIKEY",
            "GH_TOKEN",
        ),
        *("GITHUB_PAT", "MYSQL_PWD", "PGPASSWORD"),
    ],
)
def test_values_of_secret_variables_are_masked(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2/hunter+2")
    assert redact.redact("got hunter2/hunter+2!") == "got ***!"
    assert redact.redact("https://x/?k=hunter2%2Fhunter%2B2") == "https://x/?k=***"


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM",
        "KEYBOARD_LAYOUT",
        "HOME_DIRECTORY",
        "PWD",
        "OLDPWD",
        "PATH",
        "PATTERN",
    ],
)
def test_other_variables_are_not(monkeypatch, name):
    monkeypatch.setenv(name, "an ordinary value")
    assert redact.redact("an ordinary value") == "an ordinary value"


def test_a_longer_secret_hides_whole_though_a_shorter_is_its_part(monkeypatch):
    monkeypatch.setenv("A_KEY", "abcdefgh")
    monkeypatch.setenv("B_KEY", "abcdefgh-ijkl")
    assert redact.redact("abcdefgh-ijkl") == "***"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"login with {HF} failed", "login with *** failed"),
        (f"api_key={WANDB}", "api_key=***"),
        (f'{{"api_key": "{WANDB}"}}', '{"api_key": "***"}'),
        (f"WANDB_API_KEY: {WANDB}", "WANDB_API_KEY: ***"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("git clone https://me:passw0rd@host/x", "git clone https://***@host/x"),
        ("key wandb_v1_" + "a" * 40, "key ***"),
        ("Authorization: Basic " + "bWU6cGFzc3cwcmQ=", "Authorization: Basic ***"),
        ("https://me:p@ss:w0rd@host/x and http://a.b/c", "https://***@host/x and http://a.b/c"),
        ("https://cdn/x?Signature=abcDEF123~_&Key=1", "https://cdn/x?Signature=***&Key=1"),
    ],
)
def test_known_shapes_are_masked(text, left):
    assert redact.redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        f"revision {WANDB}",
        "12 tokens, 77 tokens per prompt",
        "the token is red",
        "prompt: a large red circle, top left",
        "https://host:8080/path",
        "tokenizer: google/flan-t5-base",
    ],
)
def test_ordinary_text_stays(text):
    assert redact.redact(text) == text


def test_a_password_within_an_address_of_the_environment_is_masked_alone_too(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass%20word-1@proxy:3128")
    assert redact.redact("407 for 'pass word-1' (pass%20word-1)") == "407 for '***' (***)"
    monkeypatch.setenv("A_TOKEN", 'quo"ted\\secret')
    assert redact.redact(json.dumps({"a": 'quo"ted\\secret'})) == '{"a": "***"}'


@pytest.mark.parametrize("value", [HF, "x sentinel-secret", "https://me:passw0rd@host/x"])
def test_a_secret_in_a_configuration_is_refused_by_its_place(monkeypatch, value):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    with pytest.raises(ConfigError, match="a secret stands in the configuration") as caught:
        redact.check({"a": [{"b": "fine"}, {"b": value}]})
    assert caught.value.where == "a.1.b" and value not in str(caught.value)
    redact.check(
        {
            "prompt": "the secret is abcdefghij",
            "revision": WANDB,
            "api_key": "mine",
            "n": 3,
            "none": None,
        }
    )


@pytest.mark.parametrize("key", ["api_key", "password", "HF_TOKEN", "wandb_api_key"])
def test_what_stands_under_a_secrets_name_is_one_whatever_it_looks_like(key):
    with pytest.raises(ConfigError, match="a secret stands in the configuration") as caught:
        redact.check({"logger": {"wandb": {key: WANDB}}})
    assert caught.value.where == f"logger.wandb.{key}" and WANDB not in str(caught.value)
    redact.check(
        {"tokenizer": "google/flan-t5-base", "num_key_value_heads": 8, "strip_token": "[IMG]"}
    )


def test_a_secret_that_is_a_number_is_one_too(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "12345678")
    with pytest.raises(ConfigError, match="a secret"):
        redact.check({"port": 12345678})
    redact.check({"port": 1234567, "factor": 0.5, "on": True})
    assert redact.redact_data({"port": 12345678, "n": 3}) == {"port": "***", "n": 3}


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


def test_containers(monkeypatch):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    data = {
        "a": ["sentinel-secret", 1, None],
        "api_key": "short",
        "b": ("x sentinel-secret",),
        "key": 3,
    }
    assert redact.redact_data(data) == {
        "a": ["***", 1, None],
        "api_key": "***",
        "b": ("x ***",),
        "key": 3,
    }


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
