"""Stages through the real configuration: all judged before the first, a threshold, resumption."""

import pytest

from tests.app.runs import SMALLEST_AUTOENCODER, configuration
from tinyflux_pl.app import run as recipes
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, Interrupted

COMMON = ("run=both", "report=false")
FLOW = (
    *("model=fluxflow_tiny", "model.width=16", "model.heads=2", "model.layers=1"),
    *("codec=bezier", "path=vp", "sampler=fluxflow", "hardware.precision=32-true"),
)


def pipeline(root, *overrides, flow=FLOW, link="codec.checkpoint", **autoencoder):
    """The plain configuration of two small stages."""
    plain = configuration("train", root, *COMMON, *overrides)
    stages = {
        "autoencoder": {"overrides": list(SMALLEST_AUTOENCODER), **autoencoder},
        "flow": {
            "overrides": [*flow, f"data.sources.shapes.cache='{root}/cache/second'"],
            "link": {link: "autoencoder"},
        },
    }
    return {**plain, "stages": stages, "preflight": False}


def folders(root):
    return [root / "outputs" / "both" / name for name in ("autoencoder", "flow")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pipeline that was interrupted in its second stage, and its first stage's results then."""
    root = tmp_path_factory.mktemp("stages")
    first, second = folders(root)
    with pytest.MonkeyPatch.context() as patch:
        save = directory.save

        def interrupted(path, **content):
            saved = save(path, **content)
            if second in saved.path.parents and content["step"] == 4:
                raise Interrupted(15)
            return saved

        patch.setattr(directory, "save", interrupted)
        with pytest.raises(Interrupted, match="resume=auto") as stopped:
            recipes.train(pipeline(root, "callbacks.checkpoint.background=false"))
    return root, str(stopped.value), (first / "results.json").stat().st_mtime_ns


def test_a_stage_that_fits_no_earlier_one_stops_all_before_the_first_trains(tmp_path):
    flow = [*FLOW, "model.layers=no"]
    with pytest.raises(ConfigError, match=r"(?s)stage 'flow'.*model.layers"):
        recipes.train(pipeline(tmp_path, flow=flow))
    with pytest.raises(ConfigError, match=r"^stage 'autoencoder': model=nothing"):
        recipes.train(pipeline(tmp_path, overrides=["model=nothing"]))
    with pytest.raises(ConfigError, match="validation/nothing"):
        until = {"metric": "validation/nothing", "mode": "max", "threshold": 1.0}
        recipes.train(pipeline(tmp_path, until=until))
    assert not any(folder.exists() for folder in folders(tmp_path))


def test_the_second_stage_is_checked_with_the_sizes_of_the_first(tmp_path):
    """Pixels of 8 x 8 cannot become cells of 16 x 16, which only the first stage's network says."""
    plain = pipeline(tmp_path, "data.image_size=24")
    with pytest.raises(ConfigError, match="stage '"):
        recipes.train(plain)
    assert not any(folder.exists() for folder in folders(tmp_path))


def test_links_and_words_that_no_stage_can_follow_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no stage 'later'"):
        plain = pipeline(tmp_path)
        plain["stages"]["flow"]["link"] = {"init": "later"}
        recipes.train(plain)
    for word in ("init=outputs/other", "replay=outputs/other"):
        with pytest.raises(ConfigError, match="has no meaning here"):
            recipes.train(pipeline(tmp_path, word))
    with pytest.raises(ConfigError, match="run= has no meaning"):
        recipes.train(pipeline(tmp_path, overrides=["run=other"]))


def test_an_interrupted_pipeline_names_its_own_command(trained):
    _, message, _ = trained
    assert "run=both" in message and "run=both/flow" not in message


def test_a_pipeline_continues_in_the_stage_in_which_it_stopped(trained, capsys):
    root, _, written = trained
    first, second = folders(root)
    with pytest.raises(ConfigError, match="has begun"):
        recipes.train(pipeline(root))
    recipes.train(pipeline(root, "callbacks.checkpoint.background=false", "resume=auto"))
    printed = capsys.readouterr().out
    assert "finished before" in printed
    assert "at step 4 of 8" in printed
    assert (first / "results.json").stat().st_mtime_ns == written
    assert files.read_json(second / "results.json")["steps"] == 8
    codec = directory.read(second / "checkpoints" / "step_0000008").config["codec"]
    assert codec["config"]["checkpoint"].startswith(str(first))
    with pytest.raises(ConfigError, match=r"another run: .*seed"):
        recipes.train(pipeline(root, "resume=auto", "seed=1"))
    with pytest.raises(ConfigError, match="would train on"):
        recipes.train(pipeline(root, "resume=auto", "steps=10"))


def test_a_stage_ends_at_the_threshold_of_a_logged_metric(tmp_path):
    until = {"metric": "validation/psnr", "mode": "max", "threshold": 0.1}
    plain = pipeline(tmp_path, until=until)
    del plain["stages"]["flow"]
    recipes.train(plain)
    assert files.read_json(folders(tmp_path)[0] / "results.json")["steps"] == 4  # of 8


def test_a_stage_that_begins_from_another_keeps_what_is_frozen(tmp_path):
    plain = pipeline(tmp_path, "steps=2")
    frozen = [
        *SMALLEST_AUTOENCODER,
        "method.frozen=[autoencoder.encoder]",
        "objective.critic_from=0",
    ]
    plain["stages"]["flow"] = {"overrides": frozen, "link": {"init": "autoencoder"}}
    recipes.train(plain)
    before, after = (
        directory.read(folder / "checkpoints" / "step_0000002").weights()
        for folder in folders(tmp_path)
    )
    moved = {name for name in before if not before[name].equal(after[name])}
    assert not any(name.startswith("autoencoder.encoder.") for name in moved)
    assert {"autoencoder", "critic"} <= {name.split(".")[0] for name in moved}


def test_a_frozen_critic_and_a_frozen_autoencoder_are_refused(tmp_path):
    for part in ("critic", "autoencoder"):
        words = [*SMALLEST_AUTOENCODER, f"method.frozen=[{part}]"]
        plain = pipeline(tmp_path, overrides=words)
        del plain["stages"]["flow"]
        with pytest.raises(ConfigError, match=r"method\.frozen"):
            recipes.train(plain)
