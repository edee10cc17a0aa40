"""Messages that send the user to extract.py name the interpreter that runs and the choices of the
run.
"""

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


def test_the_words_are_those_that_decide_a_cache_with_the_flags():
    config = {
        "flags": ["--config-dir", "'my conf'"],
        "overrides": [*WORDS, "steps=3", "optimizer.lr=1", "run=x"],
    }
    assert run_choices.words(config["flags"], config["overrides"]) == [
        "--config-dir",
        "'my conf'",
        *WORDS,
    ]


def test_a_release_and_a_folder_of_configurations_are_among_them():
    words = ["release.weights=x", "hydra.searchpath=[file:///conf]"]
    assert run_choices.words([], [*words, "hydra.verbose=true"]) == words


@pytest.mark.parametrize("task", ["train", "extract"])
def test_the_recipes_name_their_own_choices(tmp_path, monkeypatch, task):
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
    with interpreter.choosing(WORDS), pytest.raises(TinyFluxError) as caught:
        action()
    return caught.value.cure


def test_what_lacks_is_made_by_the_runs_own_command(store, tmp_path):
    store.begin_group("encodings", {"codec": 1})
    assert cure_of(lambda: CacheStore.open(tmp_path / "nowhere")).endswith(f": {LINE}")
    assert cure_of(lambda: store.group("lune")).endswith(f": {LINE}")
    assert cure_of(lambda: CachedDataset(store)).endswith(f": {LINE}")
    expert = Lune(width=4)
    assert cure_of(lambda: expert.ports({}, torch.zeros(1))).endswith(f": {LINE}")


def test_what_is_stale_is_made_anew_by_the_runs_own_command(store):
    store.begin_group("encodings", {"codec": 1})
    assert cure_of(lambda: store.begin_group("encodings", {"codec": 2})).endswith(
        f": {LINE} rebuild=true"
    )
    assert cure_of(lambda: require_equal({"a": 1}, {}, "it", "here")).endswith(
        f": {LINE} rebuild=true"
    )


def test_where_the_choices_are_not_known_the_message_says_that_they_belong_there(tmp_path):
    with pytest.raises(DataError) as caught:
        CacheStore.open(tmp_path)
    assert (
        caught.value.cure
        == f"make one: {interpreter.command('extract.py')} (the choices of your run)"
    )
