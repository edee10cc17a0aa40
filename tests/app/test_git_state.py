"""The commit of a checkout and its uncommitted changes; nothing where there is no checkout."""

import subprocess

from tinyflux_pl.app.reporting.git_state import git_state


def git(folder, *words):
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", folder, *author, *words], check=True, capture_output=True)


def test_a_checkout_has_a_commit_and_changes_make_it_dirty(tmp_path):
    (tmp_path / "file").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    clean = git_state(tmp_path)
    assert len(clean["git_commit"]) == 40 and clean["git_dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {**clean, "git_dirty": True}


def test_a_folder_inside_a_foreign_repository_has_no_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "inside").mkdir()
    unknown = {"git_commit": None, "git_dirty": None}
    assert git_state(tmp_path / "inside") == unknown
    assert git_state(tmp_path) == unknown, "no commit yet"
