"""Suggested extract.py commands name the running interpreter and the choices of the run."""

import pytest
import torch

from tests.app.runs import SMALLEST, configuration
from tinyflux_pl.app import run, run_choices
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.dataset import CachedDataset
from tinyflux_pl.cache.staleness import require_equal
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import interpreter
from tinyflux_pl.core.errors import DataError, TinyFluxError
from tinyflux_pl.experts.lune import Lune

WORDS = ["data=folder", "data.root='my photos'", "experts=lune"]
LINE = f"{interpreter.command('extract.py')} data=folder data.root='my photos' experts=lune"


def test_cache_choices_are_the_overrides_that_change_a_cache_and_the_flags():
    config = {
        "flags": ["--config-dir", "'my conf'"],
        "overrides": [*WORDS, "steps=3", "optimizer.lr=1", "run=x"],
    }
    assert run_choices.choice_words(config["flags"], config["overrides"]) == [
        "--config-dir",
        "'my conf'",
        *WORDS,
    ]


def test_cache_choices_include_release_and_search_path():
    words = ["release.weights=x", "hydra.searchpath=[file:///conf]"]
    assert run_choices.choice_words([], [*words, "hydra.verbose=true"]) == words


def test_cache_choices_include_a_method_that_chooses_data():
    words = ["method=controlnet", "method=dreambooth", "method=dreambooth_full"]
    unread = ["method=lora", "method=full", "method=none_such", "method.rank=4"]
    assert run_choices.choice_words([], [*words, *unread]) == words


def test_extraction_reads_a_method_that_chooses_data(tmp_path):
    line = ("method=controlnet", "data.sources.shapes.train.count=4")
    recipes = configuration("extract", tmp_path, *SMALLEST, *line)
    assert run.extract({**recipes, "rebuild": True}) == 0
    (manifest,) = tmp_path.rglob("train/manifest.json")
    assert "hint" in manifest.read_text()
    with pytest.raises(TinyFluxError, match="extraction does not read method"):
        run.extract(configuration("extract", tmp_path, *SMALLEST, "method=lora"))


@pytest.mark.parametrize("task", ["train", "extract"])
def test_recipes_suggest_commands_with_the_choices_of_the_run(tmp_path, monkeypatch, task):
    def refuse(config):
        raise TinyFluxError("refused", where="here", cure=interpreter.extraction("rebuild=true"))

    monkeypatch.setattr(Parts, "from_config", refuse)
    config = configuration(task, tmp_path, *SMALLEST, "experts=lune", "run=x")
    with pytest.raises(TinyFluxError) as caught:
        getattr(run, task)(config)
    words = caught.value.cure.split(" ")
    assert "experts=lune" in words and words[-1] == "rebuild=true" and "run=x" not in words
    assert caught.value.cure.startswith(interpreter.command("extract.py"))


@pytest.fixture
def store(tmp_path):
    return CacheStore.create(tmp_path / "store", "toy", 4, 4, {"kind": "toy"})


def cure_of(action):
    with interpreter.repeating_choices(WORDS), pytest.raises(TinyFluxError) as caught:
        action()
    return caught.value.cure


def test_the_suggested_command_extracts_missing_rows(store, tmp_path):
    store.begin_group("encodings", {"codec": 1})
    assert cure_of(lambda: CacheStore.open(tmp_path / "nowhere")).endswith(f": {LINE}")
    assert cure_of(lambda: store.group("lune")).endswith(f": {LINE}")
    assert cure_of(lambda: CachedDataset(store)).endswith(f": {LINE}")
    expert = Lune(width=4)
    assert cure_of(lambda: expert.ports({}, torch.zeros(1))).endswith(f": {LINE}")


def test_the_suggested_command_rebuilds_stale_rows(store):
    store.begin_group("encodings", {"codec": 1})
    assert cure_of(lambda: store.begin_group("encodings", {"codec": 2})).endswith(
        f": {LINE} rebuild=true"
    )
    assert cure_of(lambda: require_equal({"a": 1}, {}, "it", "here")).endswith(
        f": {LINE} rebuild=true"
    )


def test_a_suggested_command_with_unknown_choices_mentions_them(tmp_path):
    with pytest.raises(DataError) as caught:
        CacheStore.open(tmp_path)
    assert (
        caught.value.cure
        == f"make one: {interpreter.command('extract.py')} (the choices of your run)"
    )
