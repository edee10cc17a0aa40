"""What a process asks of OpenMP and of the C library: only what the user left open, before torch is
imported.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.house.source import ROOT
from tinyflux_pl.app.cli import process_settings


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setattr(process_settings, "_done", [])
    calls = []
    monkeypatch.setattr(process_settings, "_keep_pages", lambda: calls.append("kept") or True)
    return calls


def test_what_nobody_set_is_set(unset):
    environment = {"PATH": "/bin"}
    told = process_settings.apply(environment)
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": "1000"} and unset == ["kept"]
    assert "GOMP_SPINCOUNT=1000 (set here)" in told[0] and "set here" in told[1]
    assert process_settings.apply(environment) == told and unset == ["kept"]


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_a_users_way_to_wait_stays(unset, name):
    environment = {name: "7"}
    assert f"{name}=7" in process_settings.apply(environment)[0] and environment == {name: "7"}


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_a_users_allocator_stays(unset, name):
    assert f"as {name}=x says" in process_settings.apply({name: "x"})[1] and unset == []


def test_it_is_done_before_torch_is_imported():
    code = (
        "import sys, os, json; import tinyflux_pl.app.cli.command_line as c; loaded = 'torch' in "
        "sys.modules; "
    )
    code += (
        "c.process_settings.apply(); print(json.dumps([loaded, 'torch' in sys.modules, "
        "os.environ['GOMP_SPINCOUNT']]))"
    )
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in process_settings.WAITING and not k.startswith("KMP_")
    }
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(found.stdout) == [False, False, "1000"]
