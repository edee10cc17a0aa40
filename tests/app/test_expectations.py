"""What can be expected of a run on one's own pictures, and of teachers that have never seen such,
is said first.
"""

from tests.app.runs import SMALLEST, photographs, run, settings
from tinyflux_pl.app.preflight import expectations

OWN = ("data=folder", "data.image_size=32", "data.validation_fraction=0.3")


def test_a_run_on_photographs_says_what_to_expect_and_shows_each_beside_the_data(tmp_path, capsys):
    from PIL import Image

    photos = photographs(tmp_path / "photos", ["coffee", "rocket", "astronaut", "chelsea"])
    quick = ("callbacks.validation.every_steps=0", "callbacks.preview.every_steps=0", "steps=2")
    run(
        "train",
        tmp_path,
        *SMALLEST,
        *OWN,
        *quick,
        f"data.root='{photos}'",
        "callbacks.preview.count=1",
        "run=x",
    )
    said = capsys.readouterr().out
    assert (
        "pictures of your own to learn from" in said
        and "a picture" in said
        and "32 x 32 pixels" in said
    )
    assert "embedded teachers" not in said, "no experts were asked for"
    sheet = Image.open(tmp_path / "outputs" / "x" / "samples" / "step_0000002.png")
    assert sheet.width > 1.5 * 128, "two pictures side by side"


def test_embedded_teachers_are_recommended_for_nothing_that_they_do_not_know(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    root = f"data.root='{photos}'"
    (line,) = expectations.of_teachers(settings("train", tmp_path, *OWN, root, "experts=lune_sol"))
    assert "lune, sol" in line and "shapes, scenes, digits" in line and "experts=none" in line
    assert expectations.of_teachers(settings("train", tmp_path, *OWN, root)) == []
    for data in ("shapes", "scenes", "digits", "mixture"):
        drawn = settings("train", tmp_path, f"data={data}", "experts=lune_sol")
        assert expectations.of_teachers(drawn) == [], data
    earlier = "data.sources.shapes.train._target_=tinyflux_pl.data.shapes.Shapes"
    assert expectations.of_teachers(settings("train", tmp_path, earlier, "experts=lune")) == []
    halves = settings("train", tmp_path, "data=digit_halves", "experts=lune")
    assert len(expectations.of_teachers(halves)) == 1, "sequences are no pictures"
    unstated = settings("train", tmp_path, *OWN, root, "experts=lune")
    del unstated.teacher.node("lune")["folder"]  # as a teacher's YAML of one's own may leave it out
    assert len(expectations.of_teachers(unstated)) == 1


def test_the_projects_own_data_need_no_such_words(tmp_path, capsys):
    quick = (
        "callbacks.validation.every_steps=0",
        "callbacks.preview.every_steps=0",
        "data.evaluation_prompts=0",
    )
    run("train", tmp_path, *SMALLEST, *quick, "steps=1", "run=x")
    assert "your own" not in capsys.readouterr().out
