"""`reference=` to networks that were trained with references, and to others, which refuse it."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.app import kept_compositions
from tests.app.runs import SMALLEST, run, settings
from tests.data.records.test_image_pairs import picture
from tinyflux_pl.app.adapters import main
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.fitting import trained_references
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.checkpoints import directory, reference_count
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.weights.headers import metadata_of

SIDE = (32, 32)
TINY = (*SMALLEST, "steps=1", "sampler.steps=1", "hardware.batch_size=2", "data.image_size=32")
QUIET = ("callbacks.preview.every_steps=0", "callbacks.validation.every_steps=0")
UNTAUGHT = ("data.evaluation_prompts=0",)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Runs `shapes` (no references), `pairs`, and an adapter of pairs on the first: `edits`."""
    root = tmp_path_factory.mktemp("project")
    for i in range(4):
        picture(root / f"data/p{i}_target.png", i, SIDE)
        picture(root / f"data/p{i}_ref.png", 30 + i, SIDE)
        (root / f"data/p{i}_caption.txt").write_text("a red circle")
    pairs = ("data=pairs", f"data.root='{root}/data'", "data.validation_fraction=0.5")
    shapes = [word for word in TINY if not word.startswith("data.")]
    with kept_compositions.kept({}):
        run("train", root, *shapes, *QUIET, *UNTAUGHT, "run=shapes")
        run("train", root, *TINY, *QUIET, *pairs, "run=pairs")
        start = f"init='{root}/outputs/shapes'"
        run(
            "train", root, *TINY, *QUIET, *pairs, "method=lora", "method.rank=1", start, "run=edits"
        )
        yield root


def draw(project, *words, references=("p0_ref.png",)):
    folder = project / f"drawn_{len(list(project.glob('drawn_*')))}"
    photos = ",".join(f"'{project}/data/{name}'" for name in references)
    words = (f"reference=[{photos}]", f"output='{folder}'", *words)
    run("generate", project, "prompt='a red circle'", *words)
    return json.loads(Image.open(folder / "image_0000.png").text["tinyflux_pl"])


def test_a_network_without_references_refuses_them_before_it_draws(project):
    with pytest.raises(ConfigError, match="trained without reference pictures") as error:
        draw(project, f"checkpoint='{project}/outputs/shapes'")
    assert error.value.where == "reference" and "data=pairs" in error.value.cure
    assert not any(project.glob("drawn_*/*.png"))


@pytest.mark.parametrize("name", ["pairs", "edits"])
def test_a_network_that_has_seen_references_draws_with_them(project, name):
    metadata = draw(project, f"checkpoint='{project}/outputs/{name}'")
    assert [file for file, _ in metadata["pictures"]] == ["p0_ref.png"]


def test_an_adapter_that_has_seen_references_brings_them_to_its_base(project):
    words = (f"checkpoint='{project}/outputs/shapes'", f"lora='{project}/outputs/edits'")
    assert draw(project, *words)["pictures"]
    with pytest.raises(ConfigError, match="trained without reference pictures"):
        draw(project, words[0], f"lora='{project}/outputs/edits:0'")


@pytest.fixture(scope="module")
def exported(project):
    """The adapter's file in one of its layouts -> its path."""
    for layout in ("peft", "diffusers", "kohya"):
        words = ["export", f"{project}/outputs/edits", f"{project}/{layout}", "--layout", layout]
        assert main(words) == 0
    return lambda layout: next((project / layout).glob("*.safetensors"))


@pytest.mark.parametrize("layout", ["peft", "diffusers", "kohya"])
def test_an_exported_adapter_brings_its_references_in_the_header_of_its_file(
    project, exported, layout
):
    file = exported(layout)
    assert metadata_of(file) == {"format": "pt", "tinyflux_pl.references": "1"}
    words = (f"checkpoint='{project}/outputs/shapes'", f"lora='{file}'")
    assert draw(project, *words)["pictures"]


def on_shapes(project, exported, metadata):
    """Words that draw on `shapes` with the adapter under another header."""
    file = project / f"header_{len(list(project.glob('header_*')))}.safetensors"
    files.write_tensors(file, files.read_tensors(exported("kohya")), metadata)
    return f"checkpoint='{project}/outputs/shapes'", f"lora='{file}'"


def test_a_file_trained_without_references_leaves_its_base_without(project, exported):
    with pytest.raises(ConfigError, match="trained without reference pictures"):
        draw(project, *on_shapes(project, exported, {"tinyflux_pl.references": "0"}))


@pytest.mark.parametrize("metadata", [{}, {"tinyflux_pl.references": "-1"}])
def test_a_file_of_another_program_may_have_seen_references(project, exported, metadata):
    assert draw(project, *on_shapes(project, exported, metadata))["pictures"]


@pytest.mark.parametrize("words", ["checkpoint='{}/pairs'", "checkpoint='{0}/shapes' lora='{1}'"])
def test_more_references_than_in_training_are_drawn_with_one_warning(
    project, exported, capsys, words
):
    words = words.format(f"{project}/outputs", exported("kohya")).split()
    two = ("p0_ref.png", "p1_ref.png")
    assert len(draw(project, *words, references=two)["pictures"]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert line.startswith("warning: reference= names 2 pictures; these weights")
    draw(project, *words)
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "count"), [("shapes", 1), ("pairs", 2)])
def test_references_are_compared_before_weights_are_read(project, monkeypatch, capsys, name, count):
    def weights(self, which="averaged"):
        raise AssertionError(f"{which} weights are read")

    monkeypatch.setattr(directory.Checkpoint, "weights", weights)
    error = ConfigError if name == "shapes" else AssertionError
    with pytest.raises(error):
        names = ("p0_ref.png", "p1_ref.png")[:count]
        draw(project, f"checkpoint='{project}/outputs/{name}'", references=names)
    assert ("warning: reference=" in capsys.readouterr().out) == (name == "pairs")


@pytest.mark.parametrize(
    ("init", "resumed", "weights", "rule", "expected"),
    [
        (None, None, None, "as_is", 0),
        ("pairs", None, None, "as_is", 1),
        ("shapes", None, None, "as_is", 0),
        ("pairs/file.safetensors", None, None, "as_is", None),
        (None, {"references": 1}, None, "as_is", 1),
        (None, {"references": 0}, None, "as_is", 0),
        (None, None, "folder", "preferred", None),  # a release that was trained on references
        (None, None, "folder", None, 0),
    ],
)
def test_runs_without_references_keep_those_of_their_start(
    project, init, resumed, weights, rule, expected
):
    path = None if init is None else str(project / "outputs" / init)
    config = SimpleNamespace(init=path, model={"weights": weights})
    store = SimpleNamespace(layout=lambda group: {"latents": None})
    sources = [SimpleNamespace(train=SimpleNamespace(store=store))]
    checkpoint = None if resumed is None else SimpleNamespace(config=resumed)
    denoiser = SimpleNamespace(reference_size=rule)
    assert trained_references.count(config, sources, denoiser, checkpoint) == expected


EARLIER = {"captions": {"sources": {"a": {"records": "shapes"}}}}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"references": 2}, 2),
        ({"references": 0}, 0),
        ({"references": None, **EARLIER}, None),
        ({"references": "many"}, None),
        ({"references": True}, None),
        (EARLIER, 0),
        ({**EARLIER, "init": {"place": "somewhere"}}, None),
        ({"captions": {"sources": {"a": {"records": "pairs"}}}}, None),
        ({"captions": {"sources": [1]}}, None),
        ({}, None),
    ],
)
def test_descriptions_say_how_many_references_were_seen(config, count):
    assert reference_count.recorded(config) == count


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [(0, 0, 0), (0, 1, 1), (2, 1, 2), (None, 0, None), (None, 1, 1), (None, None, None)],
)
def test_a_network_has_seen_what_any_of_its_runs_has(one, other, both):
    assert reference_count.larger(one, other) == reference_count.larger(other, one) == both


def test_an_input_for_holes_that_no_release_has_trained_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(release_settings, "with_release_settings", lambda config: config)
    words = ("model=flux2_dev", f"model.weights='{tmp_path}'", "model.inpaint=true", "prompt=x")
    with pytest.raises(ConfigError, match="inpainting input"):
        pipeline(settings("generate", tmp_path, *words, "image=a.png", "mask=b.png"))
