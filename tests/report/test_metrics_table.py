"""A metrics.csv of any state is read as far as it can be, and its faults are named."""

from tinyflux_pl.report import metrics_table


def read(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return metrics_table.read(path)


def test_columns_become_curves_without_their_empty_cells(tmp_path):
    curves, notes = read(tmp_path, "step,a,b\n1,0.5,\n2,,0.25\n")
    assert curves["a"].steps.tolist() == [1] and curves["b"].values.tolist() == [0.25]
    assert notes == []


def test_a_truncated_line_is_ignored_with_a_note(tmp_path):
    curves, notes = read(tmp_path, "step,a\n1,0.5\n2,0.2")
    assert curves["a"].steps.tolist() == [1]
    assert len(notes) == 1 and "cut off" in notes[0]


def test_cells_that_are_not_numbers_are_ignored_and_counted(tmp_path):
    curves, notes = read(tmp_path, "step,a\n1,0.5\nx,1\n3,many\n4,nan\n5,inf\n")
    assert curves["a"].steps.tolist() == [1] and curves["a"].not_finite == (4, 5)
    assert notes == ["2 cells of metrics.csv are not numbers; they are ignored"]


def test_rows_that_are_too_short_or_too_long_are_read(tmp_path):
    curves, _ = read(tmp_path, "step,a,b\n1,0.5\n2,0.5,0.6,0.7\n")
    assert curves["a"].steps.tolist() == [1, 2] and curves["b"].steps.tolist() == [2]


def test_an_unrelated_file_has_no_curves(tmp_path):
    assert read(tmp_path, b"\x89PNG\0\xff\xfe,\n\n")[0] == {}
    assert read(tmp_path, "")[0] == {}
    assert read(tmp_path, "a,b\n1,2\n")[0] == {}


def test_a_missing_file_is_noted(tmp_path):
    curves, notes = metrics_table.read(tmp_path / "metrics.csv")
    assert curves == {} and "no metrics.csv" in notes[0]


def test_a_hundred_thousand_rows_are_read(tmp_path):
    lines = "\n".join(f"{step},{step / 2}" for step in range(100_000))
    curves, notes = read(tmp_path, f"step,a\n{lines}\n")
    assert len(curves["a"]) == 100_000 and not notes
