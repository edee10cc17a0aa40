"""Keys of sampler and guidance are judged before a checkpoint's or a release's weights are read."""

import pytest

from tests.app.runs import SMALLEST, run, settings
from tinyflux_pl.app.build_pipeline import pipeline
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.inference.pipeline import Pipeline

QUIET = ("callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0")
SHORT = (*SMALLEST, *QUIET, "data.evaluation_prompts=0", "steps=1", "sampler.solver=euler")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Checkpoints `guided` and `unguided`, whose own sampler has no guidance, as of few steps."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SHORT, "run=guided", "sampler.steps=4")
    run("train", project, *SHORT, "run=unguided", "sampler.steps=4", "guidance=none")
    return project


class WeightsRead(Exception):
    """Stands for the reading of weights."""


@pytest.fixture
def drawing(root, monkeypatch):
    """(run, words) -> raises what is refused, or WeightsRead."""

    def read(*_, **__):
        raise WeightsRead

    def started(name, *words):
        monkeypatch.setattr(Pipeline, "from_checkpoint", read)
        line = (f"checkpoint='{root}/outputs/{name}'", "prompt='a red circle'", *words)
        pipeline(settings("generate", root, *line))

    return started


REFUSED = [
    ("unguided", ("guidance.interval=[0.2,0.5]",), "nothing reads guidance.interval"),
    ("unguided", ("guidance.kind=apg",), "nothing reads guidance.kind"),
    ("unguided", ("guidance.negative=blurred",), "nothing reads guidance.negative"),
    ("unguided", ("guidance.eta=0.5",), "nothing reads guidance.eta"),
    ("unguided", ("negative_prompt=blurred",), "does nothing at guidance.scale=1"),
    ("guided", ("guidance.embedded=3.5",), "no guidance input"),
    ("guided", ("guidance.skip_layers=[99]",), "no block 99"),
    ("guided", ("guidance.scale=-1",), "scale=-1"),
    (
        "guided",
        ("guidance.interval=[0.3,0.4]", "negative_prompt=blurred"),
        "no step lies inside guidance.interval",
    ),
]


@pytest.mark.parametrize(("name", "words", "reason"), REFUSED)
def test_a_checkpoint_refuses_them_before_its_weights_are_read(drawing, name, words, reason):
    with pytest.raises(ConfigError, match=reason):
        drawing(name, *words)


ALLOWED = [
    ("unguided", ("guidance.interval=[0.2,0.5]", "guidance.scale=2.0")),
    ("guided", ("guidance.interval=[0.3,0.6]", "negative_prompt=blurred")),
    ("guided", ("guidance.skip_layers=[0]", "guidance.skip_interval=[0.0,1.0]")),
    ("guided", ("guidance.scale=1.0", "guidance.interval=[0.0,1.0]")),
]


@pytest.mark.parametrize(("name", "words"), ALLOWED)
def test_keys_that_the_settings_read_are_drawn_without_a_note(drawing, capsys, name, words):
    with pytest.raises(WeightsRead):
        drawing(name, *words)
    assert "no step" not in capsys.readouterr().out


def test_an_interval_between_two_steps_is_named_before_the_weights_are_read(drawing, capsys):
    with pytest.raises(WeightsRead):
        drawing("guided", "guidance.interval=[0.3,0.4]")
    output = " ".join(capsys.readouterr().out.split())
    assert "note: no step lies inside guidance.interval=[0.3,0.4], so guidance.scale=" in output
    with pytest.raises(WeightsRead):
        drawing("guided", "guidance.interval=[0.3,0.4]", "sampler.steps=3")
    assert "no step" not in capsys.readouterr().out


def test_of_published_weights_too(tmp_path):
    words = ("model=sdxl", "model.random_weights=true", "prompt=red", "sampler=euler")
    for word, reason in (
        ("guidance.embedded=3.5", "no guidance input"),
        ("guidance.skip_layers=[999]", "no block 999|no blocks"),
    ):
        with pytest.raises(ConfigError, match=reason):
            pipeline(settings("generate", tmp_path, *words, word, "guidance.scale=5"))


def test_a_simulation_names_it_too(tmp_path, capsys):
    words = ("model=sdxl", "simulate=true", "prompt=red", "sampler=euler", "sampler.steps=4")
    pipeline(settings("generate", tmp_path, *words, "guidance.interval=[0.999,0.9995]"))
    assert "no step lies inside guidance.interval" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("word", "reason"),
    [("guidance.embedded=3.5", "no guidance input"), ("guidance.skip_layers=[99]", "no block 99")],
)
def test_training_refuses_them_without_a_dry_run(tmp_path, word, reason):
    with pytest.raises(ConfigError, match=reason):
        run("train", tmp_path, *SHORT, word, "preflight=false", "run=none")
    assert not (tmp_path / "outputs").exists()


def test_training_names_an_interval_between_two_steps_of_its_previews(tmp_path, capsys):
    words = ("sampler.steps=4", "guidance.interval=[0.3,0.4]", "run=named")
    run("train", tmp_path, *SHORT, *words)
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("note: no step lies inside guidance.interval=[0.3,0.4]") == 1
