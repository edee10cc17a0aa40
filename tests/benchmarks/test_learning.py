"""The learning benchmark reads steps and rates from a run's metrics."""

import pytest

from benchmarks.learning import arm_of

CSV = """step,train/images_per_second,preview/accuracy_all
25,100,
100,120,0.4
125,110,
200,110,0.92
300,,0.95
"""


@pytest.fixture
def metrics(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text(CSV)
    return file


def test_an_arm_reaches_the_threshold_at_its_first_preview_beyond_it(metrics):
    arm = arm_of(metrics, 0.9)
    assert (arm.reached, arm.last, arm.best) == (200, 300, 0.95)
    assert arm.seconds == pytest.approx(200 * 32 / 110)


def test_an_arm_that_never_reaches_it_counts_all_its_steps(metrics):
    arm = arm_of(metrics, 0.99)
    assert arm.reached is None and arm.steps == 300
