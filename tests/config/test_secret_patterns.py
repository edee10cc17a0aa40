"""Tokens of many issuers are masked and refused; similar names, numbers and words are not."""

import pytest

from tinyflux_pl.config import redact
from tinyflux_pl.core.errors import ConfigError

BODY = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"
HEX = "0123456789abcdef" * 4
# put together here, so that no scanner takes this file for a leak
TOKENS = {
    "hub": "hf_" + BODY,
    "hub of an organisation": "api_org_" + BODY,
    "lab": "glpat" + "-" + BODY[:20],
    "model host": "sk-" + "proj-" + BODY[:18] + "_" + BODY[18:],
    "another model host": "sk-" + "ant-api03-" + BODY,
    "cloud, for an hour": "ASIA" + BODY[:16].upper(),
    "maps": "AIza" + (BODY * 2)[:35],
    "login of a client": "GOCSPX-" + BODY[:28],
    "chat": "xoxb" + "-123456789012-" + BODY,
    "payments": "sk_live" + "_" + BODY[:24],
    "mail": "SG" + "." + BODY[:22] + "." + BODY,
    "packages": "npm_" + BODY,
    "more packages": "pypi-" + "AgEIcHlwaS5vcmc" + BODY,
    "images": "dckr_pat_" + BODY[:27],
    "predictions": "r8_" + BODY,
    "fast model host": "gsk_" + BODY,
    "data platform": "dapi" + HEX[:32],
    "droplets": "dop_v1_" + HEX,
    "vault": "hvs" + "." + BODY,
    "bot": "123456789:" + "AA" + BODY[:33],
    "web token": "eyJ" + "hbGciOiJIUzI1NiJ9" + "." + BODY + "." + BODY,
    "tracker": "eyJhcGlf" + BODY,
    "private key": "-----BEGIN "
    + "OPENSSH PRIVATE KEY-----\n"
    + BODY
    + "\n-----END OPENSSH PRIVATE KEY-----",
    "a torn private key": "-----BEGIN " + "RSA PRIVATE KEY-----\n" + BODY,
}
HOLDERS = {
    f"https://{HEX[:32]}@errors.invalid/1": "https://***@errors.invalid/1",
    f"AccountName=x;AccountKey={BODY}==;": "AccountName=x;AccountKey=***;",
    f"https://a.invalid/b?se=1&sig={BODY}": "https://a.invalid/b?se=1&sig=***",
    f"curl -H 'x-api-key: {BODY}'": "curl -H 'x-api-key: ***'",
    f"sent Bearer {BODY}": "sent Bearer ***",
    f"Cookie: {BODY}": "Cookie: ***",
    f"hooks.slack.com/services/T000/B000/{BODY}": "hooks.slack.com/***",
    f"discord.invalid/api/webhooks/1/{BODY}": "discord.invalid/api/webhooks/***",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_is_masked_and_refused_in_a_configuration(token):
    assert redact.redact(f"with <{token}> it failed").startswith("with <***")
    assert BODY not in redact.redact(f"with <{token}> it failed")
    with pytest.raises(ConfigError, match="the configuration contains a secret"):
        redact.check({"notes": [f"x {token}"]})
    with pytest.raises(ConfigError, match="the configuration contains a secret") as caught:
        redact.check({"notes": {token: 1}})
    assert token not in str(caught.value)


@pytest.mark.parametrize("text", HOLDERS)
def test_a_value_after_a_secret_label_is_masked(text):
    assert redact.redact(text) == HOLDERS[text]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "sk-learn_digits_and_their_captions_of_1997",
            "task-specific-conditioning-with-many-words-12",
        ),
        *(
            "risk-averse-sampling-of-a-thousand-pictures-1",
            "outputs/2026-11-28_10-20-30/checkpoints/step_0000500",
        ),
        *(
            "https://hub.invalid/black-forest-labs/FLUX.1-dev",
            HEX,
            "user@host.invalid:/data",
            "eyJ is how it begins",
        ),
        *("a basic shape", "the bearer of a torch", "photo_12345678:AAB", "a pwd that is printed"),
    ],
)
def test_ordinary_text_is_unchanged(text):
    assert redact.redact(text) == text
    redact.check({"notes": text})


@pytest.mark.parametrize("name", ["AZURE_STORAGE_CONNECTION_STRING", "SLACK_WEBHOOK_URL", "MY_JWT"])
def test_values_of_more_variables_are_masked(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2-hunter2")
    assert redact.redact("got hunter2-hunter2!") == "got ***!"
