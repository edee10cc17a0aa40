"""Flux Core draws pictures from text too, without experts."""

import json

import pytest

from tests.app.runs import run
from tinyflux_pl.core.errors import ConfigError


def test_the_same_network_trains_text_to_image(tmp_path):
    run("train", tmp_path, "model=flux_core", "run=words")
    results = json.loads((tmp_path / "outputs" / "words" / "results.json").read_text())
    assert 0 <= results["prompt_accuracy"] <= 1 and results["ask"] is None


def test_experts_are_refused_for_sequence_models(tmp_path):
    with pytest.raises(ConfigError, match="lune_dim"):
        run("train", tmp_path, "model=flux_core", "experts=lune", "run=none")
