"""Advice on the names of other programs: the key that does the same, or none."""

import pytest

from tinyflux_pl.config.synonyms import advice

KEYS = ("run", "steps", "image", "control", "reference", "model.weights", "optimizer.lr")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("run_name", "run"),
        ("name", "run"),
        ("model.name", ""),
        ("trainer.name", "run"),  # no group of ours
        ("model.lr", "optimizer.lr"),
        ("init_image", "image"),
        ("control_image", "control"),
        ("reference_image", "reference"),
    ],
)
def test_a_word_of_other_programs_means_the_key_that_does_the_same(key, meant):
    assert advice(key, KEYS) == (f"did you mean {meant}? " if meant else "")


def test_a_control_branch_is_part_of_the_project():
    assert "method=controlnet" in advice("controlnet", KEYS)
