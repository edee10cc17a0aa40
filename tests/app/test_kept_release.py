"""Scheduler settings of a release are recorded with a run; resuming under others is refused."""

import json

import pytest

from tests import releases_stability
from tests.app.runs import SHAPES, configuration, run, settings
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.hardware import resolve_auto
from tinyflux_pl.config.diff import changes
from tinyflux_pl.core.errors import ConfigError

SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    releases_stability.sdxl(folder)
    return folder


@pytest.fixture
def rewritten(release):
    """Changes values of the scheduler's file until the test ends."""
    file = release / SCHEDULER
    before = file.read_text()
    yield lambda **values: file.write_text(json.dumps({**json.loads(before), **values}))
    file.write_text(before)


def request(release, *overrides):
    network = (
        "model=sdxl",
        f"model.weights='{release}'",
        "model.dtype=float32",
        "data.image_size=32",
    )
    small = (
        "hardware.batch_size=2",
        "callbacks.validation.every_steps=0",
        "callbacks.preview.count=1",
    )
    return (
        *network,
        *small,
        "data.evaluation_prompts=0",
        "sampler.steps=1",
        *SHAPES,
        "run=x",
        *overrides,
    )


@pytest.fixture(scope="module")
def trained(release, tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    run("train", root, *request(release, "steps=1"))
    return root


def test_a_run_records_the_scheduler_settings_of_its_release(trained):
    kept = json.loads((trained / "outputs" / "x" / "config.json").read_text())
    assert kept["path"]["beta_end"] == 0.012 and kept["model"]["prediction"] == "epsilon"
    assert kept["sampler"]["spacing"] == "leading"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"beta_end": 0.02}, "path.beta_end"),
        ({"prediction_type": "v_prediction"}, "model.prediction"),
        ({"rescale_betas_zero_snr": True}, "path.zero_terminal_snr"),
    ],
)
def test_a_changed_scheduler_setting_is_refused_by_its_key(
    trained, release, rewritten, values, key
):
    rewritten(**values)
    with pytest.raises(ConfigError) as caught:
        run("train", trained, *request(release, "steps=2", "resume=auto"))
    assert key in caught.value.what and "resume_changed=true" in caught.value.cure


def test_a_run_without_recorded_scheduler_is_compared_with_its_checkpoint(
    trained, release, rewritten
):
    then = resolve_auto(settings("train", trained, *request(release, "steps=1"))).plain
    assert then["path"] == {} and then["sampler"]["shift"] is None, "as older releases wrote it"
    now = Parts.from_config(settings("train", trained, *request(release, "steps=1"))).config.plain
    assert [c.key for c in changes(then, now, 1)] == []
    file = trained / "outputs" / "x" / "config.json"
    before = file.read_text()
    file.write_text(json.dumps({**then, "from_step": 0}))
    rewritten(beta_end=0.02)
    try:
        with pytest.raises(ConfigError, match=r"beta_end 0.012 -> 0.02"):
            recipes.train(
                configuration("train", trained, *request(release, "steps=2", "resume=auto"))
            )
    finally:
        file.write_text(before)


def test_a_run_resumes_with_an_unchanged_release(trained, release):
    run("train", trained, *request(release, "steps=2", "resume=auto"))
    assert (trained / "outputs" / "x" / "checkpoints" / "step_0000002").is_dir()
