"""Free memory and peak memory, where the system measures them."""

import pytest
import torch

from tinyflux_pl.engine import peak_memory


def test_the_peak_of_a_block_excludes_earlier_allocations():
    with peak_memory.measured("cpu") as first:
        earlier = torch.ones(2**24)
        del earlier
    if first.bytes is None:
        pytest.skip("no counter of resident memory that can be reset")
    with peak_memory.measured("cpu") as small:
        torch.ones(2**10)
    assert 60 * 2**20 < first.bytes < 80 * 2**20
    assert small.bytes < 8 * 2**20


def test_the_peak_is_unknown_where_it_cannot_be_measured(monkeypatch):
    monkeypatch.setattr(peak_memory, "_reset_peak", lambda: False)
    with peak_memory.measured("cpu") as peak:
        torch.ones(2**20)
    assert peak.bytes is None


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "job", ("memory.max", "memory.current")),
        ("0::/", "", ("memory.max", "memory.current")),
        ("7:memory:/job", "memory/job", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_control_group_limits_bound_available_memory(tmp_path, monkeypatch, line, folder, names):
    group = tmp_path / "groups" / folder
    group.mkdir(parents=True)
    (group / names[0]).write_text("5000000\n")
    (group / names[1]).write_text("3000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 500000\ntotal_inactive_file 500000\n")
    (tmp_path / "own").write_text(f"3:cpu:/elsewhere\n{line}\n")
    (tmp_path / "meminfo").write_text("MemTotal: 90000 kB\nMemAvailable:    8000 kB\n")
    for name, path in (("CGROUPS", "groups"), ("PROCESS_CGROUP", "own"), ("MEMORY", "meminfo")):
        monkeypatch.setattr(peak_memory, name, tmp_path / path)
    assert peak_memory.available_bytes("cpu") == 2_500_000
    (group / names[0]).write_text("max\n")
    assert peak_memory.available_bytes("cpu") == 8000 * 1024
