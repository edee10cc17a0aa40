"""Thread and allocator settings of a process: only unset ones are set, before torch is imported."""

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


def test_unset_process_settings_receive_defaults(unset):
    environment = {"PATH": "/bin"}
    notes = process_settings.apply(environment)
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": "1000"} and unset == ["kept"]
    assert "GOMP_SPINCOUNT=1000 (set here)" in notes[0] and "set here" in notes[1]
    assert process_settings.apply(environment) == notes and unset == ["kept"]


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_thread_wait_settings_of_the_user_are_kept(unset, name):
    environment = {name: "7"}
    assert f"{name}=7" in process_settings.apply(environment)[0] and environment == {name: "7"}


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_allocator_settings_of_the_user_are_kept(unset, name):
    assert f"as {name}=x says" in process_settings.apply({name: "x"})[1] and unset == []


def test_process_settings_are_applied_before_torch_is_imported():
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
    completed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(completed.stdout) == [False, False, "1000"]
