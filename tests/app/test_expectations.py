"""Expectations are printed for training on user images and with teachers unfamiliar with them."""

from tests.app.runs import SMALLEST, photographs, run, settings
from tinyflux_pl.app.preflight import expectations

PHOTOS = ("data=folder", "data.image_size=32", "data.validation_fraction=0.3")


def test_a_run_on_photographs_prints_expectations_and_compares_samples_with_data(tmp_path, capsys):
    from PIL import Image

    photos = photographs(tmp_path / "photos", ["coffee", "rocket", "astronaut", "chelsea"])
    quick = ("callbacks.validation.every_steps=0", "callbacks.preview.every_steps=0", "steps=2")
    run(
        "train",
        tmp_path,
        *SMALLEST,
        *PHOTOS,
        *quick,
        f"data.root='{photos}'",
        "callbacks.preview.count=1",
        "run=x",
    )
    output = capsys.readouterr().out
    assert (
        "pictures of your own to learn from" in output
        and "a picture" in output
        and "32 x 32 pixels" in output
    )
    assert "embedded teachers" not in output, "no experts were asked for"
    sheet = Image.open(tmp_path / "outputs" / "x" / "samples" / "step_0000002.png")
    assert sheet.width > 1.5 * 128, "two pictures side by side"


def test_embedded_teachers_are_discouraged_for_unfamiliar_data(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    root = f"data.root='{photos}'"
    (line,) = expectations.teacher_notes(
        settings("train", tmp_path, *PHOTOS, root, "experts=lune_sol")
    )
    assert "lune, sol" in line and "shapes, scenes, digits" in line and "experts=none" in line
    assert expectations.teacher_notes(settings("train", tmp_path, *PHOTOS, root)) == []
    for data in ("shapes", "scenes", "digits", "mixture"):
        drawn = settings("train", tmp_path, f"data={data}", "experts=lune_sol")
        assert expectations.teacher_notes(drawn) == [], data
    earlier = "data.sources.shapes.train._target_=tinyflux_pl.data.shapes.Shapes"
    assert expectations.teacher_notes(settings("train", tmp_path, earlier, "experts=lune")) == []
    halves = settings("train", tmp_path, "data=digit_halves", "experts=lune")
    assert len(expectations.teacher_notes(halves)) == 1, "sequences are no pictures"
    unstated = settings("train", tmp_path, *PHOTOS, root, "experts=lune")
    del unstated.teacher.node("lune")["folder"]  # as a teacher's YAML of one's own may leave it out
    assert len(expectations.teacher_notes(unstated)) == 1


def test_runs_on_synthetic_data_print_no_expectations(tmp_path, capsys):
    quick = (
        "callbacks.validation.every_steps=0",
        "callbacks.preview.every_steps=0",
        "data.evaluation_prompts=0",
    )
    run("train", tmp_path, *SMALLEST, *quick, "steps=1", "run=x")
    assert "your own" not in capsys.readouterr().out
