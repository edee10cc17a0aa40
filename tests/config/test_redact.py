"""Secrets of the environment and of known formats are masked; other text is unchanged."""

import json

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
def test_values_of_other_variables_are_not_masked(monkeypatch, name):
    monkeypatch.setenv(name, "an ordinary value")
    assert redact.redact("an ordinary value") == "an ordinary value"


def test_a_secret_that_contains_another_is_masked_completely(monkeypatch):
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
def test_known_token_formats_are_masked(text, left):
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
def test_ordinary_text_is_unchanged(text):
    assert redact.redact(text) == text


def test_a_password_inside_an_environment_url_is_masked_on_its_own(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass%20word-1@proxy:3128")
    assert redact.redact("407 for 'pass word-1' (pass%20word-1)") == "407 for '***' (***)"
    monkeypatch.setenv("A_TOKEN", 'quo"ted\\secret')
    assert redact.redact(json.dumps({"a": 'quo"ted\\secret'})) == '{"a": "***"}'


@pytest.mark.parametrize("value", [HF, "x sentinel-secret", "https://me:passw0rd@host/x"])
def test_a_secret_in_a_configuration_is_refused_by_its_key(monkeypatch, value):
    monkeypatch.setenv("X_TOKEN", "sentinel-secret")
    with pytest.raises(ConfigError, match="the configuration contains a secret") as caught:
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
def test_any_value_under_a_secret_key_name_is_a_secret(key):
    with pytest.raises(ConfigError, match="the configuration contains a secret") as caught:
        redact.check({"logger": {"wandb": {key: WANDB}}})
    assert caught.value.where == f"logger.wandb.{key}" and WANDB not in str(caught.value)
    redact.check(
        {"tokenizer": "google/flan-t5-base", "num_key_value_heads": 8, "strip_token": "[IMG]"}
    )


def test_a_numeric_secret_is_masked(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "12345678")
    with pytest.raises(ConfigError, match="a secret"):
        redact.check({"port": 12345678})
    redact.check({"port": 1234567, "factor": 0.5, "on": True})
    assert redact.redact_data({"port": 12345678, "n": 3}) == {"port": "***", "n": 3}


def test_secrets_in_containers_are_masked(monkeypatch):
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
