"""A job of a sweep that trains on two ranks: they write one run, and leave nothing else."""

from tests.app.sweeps import sweeps


def test_ranks_of_a_job_leave_no_extra_run_folder(tmp_path):
    completed = sweeps.run(tmp_path, "-m", "seed=3", "hardware.devices=2", "hardware.strategy=ddp")
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert [row["state"] for row in sweeps.table(tmp_path)] == ["finished"]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["sweep-test"]
    inside = [path.name for path in sweeps.folder(tmp_path).iterdir() if path.is_dir()]
    assert sorted(inside) == [".jobs", "0"]
    folder = sweeps.folder(tmp_path) / "0"
    assert len(list(folder.glob("config*.json"))) == 1 and (folder / "results.json").exists()
