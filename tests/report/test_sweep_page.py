"""The page of a sweep: arms over seeds, paired comparisons, and whatever its jobs left."""

import json
import re

import numpy as np
import pytest

from tests.report import folders
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.report import __main__ as command
from tinyflux_pl.report import arms, sweep_files, sweep_page
from tinyflux_pl.report.write import write_sweep_report


@pytest.fixture
def sweep(tmp_path):
    return folders.write_sweep(tmp_path / "sweep")


def test_jobs_that_differ_only_in_seed_form_one_arm(sweep):
    files = sweep_files.read(sweep)
    grouped = arms.arms_of(files)
    assert files.swept == ["experts", "seed"]
    assert [arm.label for arm in grouped] == ["experts=none", "experts=lune_sol"]
    assert [[job.seed for job in arm.jobs] for arm in grouped] == [[0, 1, 2]] * 2


def test_the_paired_difference_is_the_gain_without_the_noise_of_seeds(sweep):
    first, second = arms.arms_of(sweep_files.read(sweep))
    result = arms.difference(first.by_seed("validation_loss"), second.by_seed("validation_loss"))
    assert result.interval.mean == pytest.approx(-0.1)
    assert result.interval.high - result.interval.low < 1e-6
    areas = arms.difference(first.areas(), second.areas())
    assert areas.interval.high < 0


def test_a_band_covers_the_steps_logged_by_every_seed(sweep):
    plain = arms.band(arms.arms_of(sweep_files.read(sweep))[0], "validation/loss")
    assert plain["x"] == list(range(10, 101, 10))
    low, mean, high = (np.array(plain[key]) for key in ("low", "y", "high"))
    assert (low <= mean).all() and (mean <= high).all() and (low < high).any()
    assert plain["name"] == "experts=none (3 seeds)"


def test_the_sweep_page_has_its_sections_and_escapes_text(sweep):
    html = write_sweep_report(sweep).read_text()
    keys = re.findall(r'<section id="(\w+)"', html)
    assert keys == ["jobs", "curves", "differences", "parallel", "pictures", "commands"]
    assert html.count("<script>") == 1 and "<script>alert" not in html
    assert "6 of 6 finished" in html and html.count("3 of 3 runs reached it") >= 1
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_a_failed_job_is_named_and_its_pair_excluded(sweep):
    (sweep / "4" / "results.json").unlink()
    files = sweep_files.read(sweep)
    first, second = arms.arms_of(files)
    result = arms.difference(first.by_seed("validation_loss"), second.by_seed("validation_loss"))
    assert result.seeds == (0, 2) and result.unpaired == (1,)
    assert any(note.startswith("job 4") and "results.json" in note for note in files.notes)
    assert "unpaired: 1" in sweep_page.html(files)


def test_a_single_seed_gives_no_comparison_and_is_noted(tmp_path):
    html = sweep_page.html(sweep_files.read(folders.write_sweep(tmp_path / "sweep", seeds=1)))
    assert "1 common seed: nothing to pair" in html


def test_folders_without_a_table_are_read(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep", table=False)
    files = sweep_files.read(folder)
    assert len(files.jobs) == 6 and any("no sweep.csv" in note for note in files.notes)


def test_a_job_without_a_folder_is_named(sweep):
    with (sweep / "sweep.csv").open("a") as file:
        file.write("6,failed,experts=none seed=9,3,outputs/sweep/6,out of memory\n")
    notes = sweep_files.read(sweep).notes
    assert "job 6 left no folder: failed out of memory" in notes


def test_the_baseline_is_chosen_by_name(sweep):
    html = write_sweep_report(sweep, "lune_sol").read_text()
    assert '<option value="1" selected>experts=lune_sol</option>' in html


@pytest.mark.parametrize("words", ["experts=sol", "experts"])
def test_an_ambiguous_or_unknown_baseline_is_refused(sweep, words):
    with pytest.raises(ConfigError, match="arms fit"):
        write_sweep_report(sweep, words)


def test_an_unrelated_table_does_not_break_the_page(sweep):
    (sweep / "sweep.csv").write_bytes(b'\xff,\0\n"open')
    (sweep / "0" / "config.json").write_text(json.dumps({"overrides": 7, "seed": "x"}))
    assert "</html>" in sweep_page.html(sweep_files.read(sweep))


def test_the_report_command_distinguishes_a_sweep_from_a_run(sweep, capsys):
    assert command.main([str(sweep)]) == 0
    assert command.main([str(sweep / "0")]) == 0
    assert capsys.readouterr().out.split() == [
        str(sweep / "report.html"), str(sweep / "0" / "report.html")
    ]  # fmt: skip
    assert "sweep report" in (sweep / "report.html").read_text()
    assert "run report" in (sweep / "0" / "report.html").read_text()


def test_the_report_command_refuses_other_folders_with_a_cure(tmp_path, sweep, capsys):
    assert command.main([str(tmp_path / "none")]) == 2
    (tmp_path / "empty").mkdir()
    assert command.main([str(tmp_path / "empty")]) == 2
    assert command.main([str(sweep / "0"), "--baseline", "x"]) == 2
    errors = capsys.readouterr().err
    assert "no such folder" in errors and "neither a run nor a sweep" in errors
    assert "a run has no arms" in errors and errors.count("do:") == 3
    assert not (tmp_path / "empty" / "report.html").exists()
