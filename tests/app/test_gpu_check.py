"""The script that holds the memory plan against a card runs on a CPU too."""

import runpy

from tests.house.source import ROOT


def test_gpu_check_prints_a_row_with_equal_losses(capsys):
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu_check.py"))
    small = ["--override=model.num_double_layers=1", "--override=model.num_single_layers=1"]
    small += ["--override=hardware.batch_size=4", "--override=hardware.precision=32-true"]
    assert script["main"](["--device=cpu", "--only=tiny", *small]) == 0
    output = capsys.readouterr().out
    row = next(line for line in output.splitlines() if line.startswith("| tiny |"))
    assert (
        row.count("|") == len(script["HEADER"]) + 1
        and "4 = 4 x 1" in row
        and "0.0e+00 of it apart" in output
    )
