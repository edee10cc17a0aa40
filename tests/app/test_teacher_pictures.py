"""A teacher's pictures are drawn once before a run, kept by what decides them, and trained on."""

import pytest

from tests.app.runs import SMALLEST, run
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.tasks.scenes.grammar import parse

WORDS = (
    *SMALLEST,
    "experts=none",
    "data=shapes_drawn",
    "data.count=4",
    "data.teacher_count=5",
    "sampler.steps=2",
    "callbacks.preview.count=1",
    "steps=2",
)


def drawn(root):
    """Folder -> file -> bytes, of all sets."""
    folders = sorted((root / "cache" / "teacher_pictures").iterdir())
    return {f.name: {p.name: p.read_bytes() for p in sorted(f.glob("teacher_*"))} for f in folders}


def guidance_scales(root):
    """The scale that each set was drawn with."""
    marks = (root / "cache" / "teacher_pictures").glob("*/teacher.json")
    return sorted(files.read_object(f)["content"]["sampler"]["guidance"]["scale"] for f in marks)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    run("train", project, *WORDS, "run=first")
    return project


def test_pictures_with_captions_of_the_training_split_are_drawn(root):
    (pictures,) = drawn(root).values()
    assert len(pictures) == 10 and len(set(pictures.values())) == 10
    (folder,) = (root / "cache" / "teacher_pictures").iterdir()
    content = files.read_object(folder / "teacher.json")["content"]
    captions = [pictures[f"teacher_{i:05d}.txt"].decode() for i in range(5)]
    assert content["prompts"] == captions and content["teacher"]["teacher"] == "lune"


def test_a_second_run_reads_them_and_a_damaged_one_is_drawn_again_with_equal_bits(root):
    before = drawn(root)
    (folder,) = (root / "cache" / "teacher_pictures").iterdir()
    (folder / "teacher_00003.png").write_bytes(b"torn")
    (folder / "teacher_00004.txt").unlink()
    run("train", root, *WORDS, "run=second")
    assert drawn(root) == before
    weights = [
        directory.read(root / "outputs" / name / "checkpoints" / "step_0000002").weights("raw")
        for name in ("first", "second")
    ]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    run("train", root, *WORDS, "run=third", "data.count=3")
    assert drawn(root) == before  # the task's own pictures decide nothing here


def test_scenes_are_drawn_for_captions_of_scenes(tmp_path):
    run("train", tmp_path, *WORDS, "data=scenes_drawn", "data.teacher_count=2", "run=scenes")
    (pictures,) = drawn(tmp_path).values()
    captions = [text.decode() for name, text in pictures.items() if name.endswith(".txt")]
    assert len(captions) == 2
    for caption in captions:
        parse(caption)  # raises for a caption that is none of a scene
    assert guidance_scales(tmp_path) == [1.5]  # conf/data/scenes_drawn.yaml says it


def test_another_teacher_or_seed_is_another_set(root):
    run("train", root, *WORDS, "run=sol", "data.teacher=sol", "path=linear")
    assert len(drawn(root)) >= 2


def test_another_guidance_is_another_set(root):
    run("train", root, *WORDS, "run=strong", "data.teacher_guidance=4")
    assert 4.0 in guidance_scales(root) and 3.0 in guidance_scales(root)


def test_a_negative_guidance_of_the_teacher_names_its_key(root):
    with pytest.raises(ConfigError) as caught:
        run("train", root, *WORDS, "run=weak", "data.teacher_guidance=-1")
    assert caught.value.where == "data.teacher_guidance"


def test_a_run_of_ones_own_draws_too(root):
    before = drawn(root)
    words = ("teacher=checkpoint", f"teacher.checkpoint='{root}/outputs/first'")
    run("train", root, *WORDS, *words, "run=own", "data.teacher=denoiser")
    assert len(drawn(root)) == len(before) + 1


def test_preflight_alone_draws_nothing(root):
    with pytest.raises(ConfigError, match="not drawn yet"):
        run("train", root, *WORDS, "run=planned", "data.teacher_seed=9", "preflight=only")


def test_a_teacher_that_is_not_there_is_named(root):
    with pytest.raises(ConfigError, match="'nobody' has no teacher"):
        run("train", root, *WORDS, "run=none", "data.teacher=nobody")
