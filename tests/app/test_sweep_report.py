"""A sweep of runs ends with its page; other sweeps, and runs that left theirs out, have none."""

import pytest

from tests.report import folders
from tinyflux_pl.app.reporting import closing_report
from tinyflux_pl.app.sweeps import rows, table


@pytest.fixture
def sweep(tmp_path):
    return folders.write_sweep(tmp_path / "sweep", seeds=2)


def test_a_sweep_ends_with_an_html_report(sweep, capsys):
    for number in range(4):
        (sweep / str(number) / "report.html").write_text("the job's own page")
        row = rows.Row.begun(number, ["experts=none"], str(sweep / str(number)))
        row.ended(rows.FINISHED, seconds=1.0).write(sweep)
    table.show(sweep)
    assert f"report: {sweep / 'report.html'}" in capsys.readouterr().out.splitlines()
    assert "4 of 4 finished" in (sweep / "report.html").read_text()


def test_a_sweep_of_jobs_without_reports_has_no_report(sweep, capsys):
    closing_report.sweep_report(sweep)
    assert not (sweep / "report.html").exists() and capsys.readouterr().out == ""


def test_a_sweep_report_that_cannot_be_written_is_one_log_line(sweep, monkeypatch, capsys):
    (sweep / "0" / "report.html").write_text("")

    def broken(folder):
        raise OSError("the disk is gone")

    monkeypatch.setattr("tinyflux_pl.report.write.write_sweep_report", broken)
    closing_report.sweep_report(sweep)
    assert capsys.readouterr().out == "no report was written: OSError: the disk is gone\n"
