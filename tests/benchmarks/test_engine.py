"""The engine's benchmark: both sides draw the same picture, and rows report what they measure."""

import pytest
import torch

from benchmarks.engine import decibels, measured, table
from benchmarks.engine_rows import ROWS
from benchmarks.engine_subjects import flux1, tinyflux


@pytest.fixture(scope="module")
def small():
    return tinyflux()


def test_both_pipelines_draw_the_same_picture_from_the_same_weights(tmp_path):
    subject = flux1(tmp_path)
    for scale in (1.0, 3.0):
        actual = (subject.ours(subject.settings(2, scale=scale)).clamp(-1, 1) + 1) / 2
        torch.testing.assert_close(actual, subject.theirs(2, scale), atol=2e-4, rtol=0)


def test_a_row_holds_ratio_bytes_and_psnr(small):
    plain = measured(ROWS["plain"](small), rounds=1)
    packed = measured(ROWS["int8"](small), rounds=1)
    assert plain["psnr"] is None and packed["psnr"] > 30
    assert packed["ratio"] == packed["their_seconds"] / packed["seconds"]
    assert packed["bytes"] < packed["their_bytes"] < plain["bytes"]
    lines = table({"tinyflux/plain": plain, "tinyflux/int8": packed})
    assert "| equal |" in lines[2] and "fp8 layerwise casting" in lines[3]


def test_weights_in_turn_take_less_than_those_of_a_stage(small):
    stage, in_turn = (measured(ROWS[n](small), rounds=1) for n in ("sequential", "blocks in turn"))
    assert in_turn["psnr"] is stage["psnr"] is None and "ratio" not in in_turn
    assert in_turn["bytes"] < 0.8 * stage["bytes"]


def test_decibels_are_those_of_pictures_between_minus_one_and_one():
    picture = torch.zeros(1, 3, 4, 4)
    assert decibels(picture, picture) is None
    assert decibels(picture + 0.2, picture) == pytest.approx(20.0, abs=1e-3)
