"""The folder that Hydra makes for a job goes again if the job leaves nothing in it; whatever it leaves stays."""

import pytest

from tinyflux_pl.app.run_folder import leaving_no_trace


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "outputs" / "job"
    folder.mkdir(parents=True)
    (folder / "generate.log").touch()

    def recipe(leaves):
        @leaving_no_trace
        def made(config):
            return leaves(folder)

        return made({"run_dir": str(folder), "paths": {"root": str(tmp_path)}})

    return recipe


def test_nothing_leaves_no_folder_and_the_root_stays(run, tmp_path):
    assert run(lambda folder: 0) == 0
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_nor_does_an_error(run, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(lambda folder: 1 / 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["generate.log", "image_0000.png"])
def test_what_was_written_stays(run, tmp_path, name):
    run(lambda folder: (folder / name).write_text("something"))
    assert (tmp_path / "outputs" / "job" / name).read_text() == "something"


def test_another_rank_than_the_first_removes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run(lambda folder: 0)
    assert (tmp_path / "outputs" / "job" / "generate.log").exists()
