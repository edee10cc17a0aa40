"""Settings, pictures and files of a drawing are judged before any weights are read."""

import pytest
from PIL import Image

from tests.app.runs import SMALLEST, run, settings
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.core.errors import ConfigError, TinyFluxError
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


INPUTS = [
    (("image={0}/none.png",), "none.png"),
    (("image={0}/bad.png",), "not a readable image"),
    (("strength=0.5",), "no picture to begin from"),
    (("mask={0}/mask.png",), "mask= without image="),
    (("image={0}/wide.png", "mask={0}/mask.png"), "the mask is 32 x 32, the picture 40 x 32"),
    (("image={0}/mask.png", "mask={0}/mask.png", "sampler.solver=euler_ancestral"), "kept part"),
    (("control={0}/mask.png",), "reads no maps"),
    (("lora={0}/outputs/guided",), "a whole network and no adapter"),
    (("lora={0}/none",), "no adapter found"),
    (("embedding={0}/none",), "no embedding found"),
    (("cache.kind=teacache", "cache.coefficients={0}/none.json"), "no such calibration"),
    (("cache.kind=teacache",), "TeaCache needs"),
    (("cache.kind=first_block", "sampler.steps=1"), "nothing to reuse"),
    (("engine.precision=int8", "engine.calibration={0}/none"), "no such calibration"),
    (("height=33", "plan=skip"), "33"),
    (("condition={0}/none.npz",), "takes prompts, not conditions"),
]


@pytest.mark.parametrize(("words", "reason"), INPUTS)
def test_files_and_pictures_are_judged_before_weights_are_read(root, drawing, words, reason):
    Image.new("L", (32, 32), 255).save(root / "mask.png")
    Image.new("RGB", (40, 32)).save(root / "wide.png")
    (root / "bad.png").write_bytes(b"text")
    with pytest.raises(TinyFluxError, match=reason):
        drawing("guided", *(word.format(root) for word in words))


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
            pipeline(settings("generate", tmp_path, *words, word, "guidance.scale=5.0"))


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


@pytest.mark.parametrize(("count", "warns"), [(1, False), (2, True)])
def test_more_references_than_a_release_was_trained_with_are_named(tmp_path, capsys, count, warns):
    names = [str(tmp_path / f"{i}.png") for i in range(count)]
    for i, name in enumerate(names):
        Image.new("RGB", (64, 64), (40 * i, 0, 0)).save(name)
    photos = ",".join(f"'{name}'" for name in names)
    words = ("model=flux1_kontext", "simulate=true", "prompt=red", f"reference=[{photos}]")
    pipeline(settings("generate", tmp_path, *words, "height=64", "width=64"))
    line = "warning: reference= names 2 pictures; these weights were trained with 1"
    assert (line in " ".join(capsys.readouterr().out.split())) == warns
