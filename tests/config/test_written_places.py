"""Places that a command writes are judged before anything is read."""

import pytest

from tinyflux_pl.config.output_folders import check_job
from tinyflux_pl.core.errors import ConfigError

FOLDERS = ("output", "engine.prompts", "export_pt")
FILES = ("engine.calibrate", "engine.report", "cache.calibrate")


def job(key, value, root):
    first, _, rest = key.partition(".")
    return {"paths": {"outputs": str(root)}, first: {rest: str(value)} if rest else str(value)}


@pytest.mark.parametrize("key", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_refused(key, tmp_path):
    check_job(job(key, tmp_path / "new" / "folder", tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"a file, not a folder[\\s\\S]*{key}=FOLDER"):
        check_job(job(key, tmp_path / "file", tmp_path))


@pytest.mark.parametrize("key", FILES)
def test_a_file_that_cannot_be_written_is_refused(key, tmp_path):
    check_job(job(key, tmp_path / "new" / "file.json", tmp_path))
    (tmp_path / "file").write_text("")
    check_job(job(key, tmp_path / "file", tmp_path))  # replaced
    with pytest.raises(ConfigError, match=f"is a file, not a folder[\\s\\S]*another: {key}=FILE"):
        check_job(job(key, tmp_path / "file" / "file.json", tmp_path))
    with pytest.raises(ConfigError, match=f"a folder, not a file[\\s\\S]*{key}=FILE"):
        check_job(job(key, tmp_path, tmp_path))


def test_a_place_that_is_not_given_is_not_judged(tmp_path):
    check_job({"paths": {"outputs": str(tmp_path)}, "engine": {"prompts": None}, "output": None})
