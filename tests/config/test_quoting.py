"""Prompts and paths pass the command line as they were typed."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.config.quoting import quoted
from tinyflux_pl.core.errors import ConfigError

TEXTS = [
    "a large red circle, top left",
    "a [very] {odd} (prompt): with = signs, and: colons",
    'it\'s a "quoted" word',
    "ends with a backslash \\",
    "back\\slash 'quote\\'s",
    "costs ${price}, or \\${price} or \\\\${price}",
    "choice(a,b)",
    "$HOME % & # ! ~ ? * | < > ; ` @ ^",
    "日本の赤い円、左上 — naïve",
    "two\nlines\tand a tab",
    "  spaces around  ",
    "7",
    "true",
    "3e5",
    "",
    "'a', 'b'",
    "key=value",
    "+plus ~tilde",
]


def composed(conf: Path, argv: list[str], name: str = "train"):
    with initialize_config_dir(str(conf), version_base=None):
        return compose(name, argv)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["prompt", "negative_prompt", "+notes", "++data.caption"])
def test_free_text_passes_the_override_grammar_unchanged(key, text):
    line = quoted(f"{key}={text}")
    value = OverridesParser.create().parse_override(line).value()
    assert OmegaConf.to_container(OmegaConf.create({"x": value}), resolve=True) == {"x": text}
    assert quoted(line) == line, "a child process prepares the prepared line again"


def test_a_prompt_is_received_as_typed(conf):
    for text in TEXTS[1:6:2]:
        line = check_line(
            [f"{key}={text}" for key in ("prompt", "negative_prompt", "+notes")], conf, "train"
        ).arguments
        config = composed(conf, line)
        assert (config.prompt, config.negative_prompt, config.notes) == (text, text, text)


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_paths_with_special_characters_are_received_as_typed(conf, flags):
    for value in ("my photos, (2024) [best]", "/mnt/a=b/c:d", "x's ~/y", "C:\\new\\", "2024"):
        line = check_line(
            [*flags, f"data.root={value}", f"checkpoint={value}"], conf, "train"
        ).arguments
        config = composed(conf, line[len(flags) :])
        assert (config.data.root, config.checkpoint) == (value, value)


@pytest.mark.parametrize(
    "key",
    [
        "checkpoint",
        "data.root",
        "+init",
        "+paths.root",
        "+data.sources.a.cache",
        "+replay",
        "+engine.report",
        "+engine.prompts",
    ],
)
def test_a_tilde_after_an_equals_sign_is_the_home_folder(conf, monkeypatch, key):
    monkeypatch.setenv("HOME", "/home of/me")
    config = composed(conf, check_line([f"{key}=~/x's (1)"], conf, "train").arguments)
    assert OmegaConf.select(config, key.lstrip("+")) == "/home of/me/x's (1)"


def test_a_literal_tilde_folder_is_refused(conf):
    (conf / "experiment" / "home.yaml").write_text("# @package _global_\npaths: {cache: ~/x}\n")
    for line in ("+paths.root='~/x'", "experiment=home"):
        with pytest.raises(ConfigError, match="a folder called ~") as caught:
            check_line([line], conf, "train")
        assert "oc.env:HOME" in caught.value.cure


@pytest.mark.parametrize("key", ["+replay", "+data.caption_file", "+data.sources.a.train.decoded"])
def test_every_path_key_accepts_special_characters(conf, key):
    value = "meta (1), v=2 [best].jsonl"
    config = composed(conf, check_line([f"{key}={value}"], conf, "train").arguments)
    assert OmegaConf.select(config, key.lstrip("+")) == value


def test_interpolation_works_in_paths_and_never_in_free_text(conf):
    line = check_line(
        ["data.root=${checkpoint}/x", "checkpoint=there", "prompt=${checkpoint}"], conf, "train"
    ).arguments
    assert composed(conf, line).data.root == "there/x"
    assert composed(conf, line).prompt == "${checkpoint}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("'a, b'", "a, b"),
        ('"a, b"', "a, b"),
        (r"'it\'s, so'", "it's, so"),
        ("null", None),
        ("'null'", "null"),
    ],
)
def test_values_quoted_by_the_user_keep_their_meaning(conf, typed, meant):
    assert composed(conf, check_line([f"prompt={typed}"], conf, "train").arguments).prompt == meant


def test_only_free_text_keys_are_quoted():
    for line in (
        "steps=3",
        "data.sizes=[1,2]",
        "model=tiny,base",
        "~prompt",
        "path=linear",
        "experts=lune",
    ):
        assert quoted(line) == line


def test_a_comma_in_a_prompt_is_no_sweep_but_choice_is(conf):
    line = check_line(
        ["--multirun", "prompt=a circle, top left", "steps=1,2"], conf, "train"
    ).arguments
    assert line == ["--multirun", "prompt='a circle, top left'", "steps=1,2"]
    sweep = ["-m", 'prompt=choice("a, b","c")']
    assert check_line(sweep, conf, "train").arguments == sweep
