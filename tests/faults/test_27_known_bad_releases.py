"""Fault 27: no package release known to be bad is locked, pinned, installed or imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.house.pinned import locked, pins
from tests.house.source import ROOT
from tinyflux_pl.config import blocked_packages
from tinyflux_pl.config.blocked_packages import KNOWN_BAD, KnownBadPackage, hits

STOLEN = [
    ("lightning", "2.6.2"),
    ("lightning", "2.6.3"),
    ("pytorch_lightning", "2.6.3"),
    ("litellm", "1.82.8"),
]
OLD = [
    ("torch", "2.9.1+cu128"),
    ("torch", "2.9"),
    ("Hydra.Core", "1.3.7"),
    ("lightning", "2.5"),
    ("torchtriton", "9"),
]
GOOD = [
    ("torch", "2.10"),
    ("torch", "2.13.0+cpu"),
    ("hydra-core", "1.3.8"),
    ("lightning", "2.6.6"),
    ("torchao", "1"),
]


def test_lock_and_constraints_hold_no_blocked_release(figure):
    versions = [(name, release.version) for name, release in locked().items()]
    blocked = hits([*versions, *pins().items(), *blocked_packages.installed()])
    listed = [f"{bad.name}=={version}" for bad, version in blocked]
    assert len(versions) > 90 and {"torch", "lightning"} <= {
        name for name, _ in blocked_packages.installed()
    }
    figure(
        27,
        "lock, constraints and environment against the list of bad releases",
        len(versions) - len(listed),
        len(versions),
    )


@pytest.mark.parametrize("release", STOLEN + OLD, ids="-".join)
def test_a_blocked_release_is_reported(release):
    (bad, version), *_ = hits([release])
    assert (
        version == release[1]
        and bad.why
        and bad.stole == (release in STOLEN or bad.name == "torchtriton")
    )


@pytest.mark.parametrize("release", GOOD, ids="-".join)
def test_a_safe_release_is_not_reported(release):
    assert not hits([release])


def test_every_entry_gives_a_reason_and_matches_a_version():
    assert all(bad.why and bad.name == bad.name.lower() for bad in KNOWN_BAD)
    assert all(bad.holds(bad.releases[0]) for bad in KNOWN_BAD if bad.releases)


@pytest.mark.parametrize("script", ["train.py", "extract.py", "generate.py"])
def test_the_program_stops_before_a_hostile_release_is_imported(tmp_path, script):
    """As lightning 2.6.3 was: what it would steal is stolen by the import itself."""
    (tmp_path / "lightning-2.6.3.dist-info").mkdir()
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text(
        f"open({str(tmp_path / 'stolen')!r}, 'w').close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    control = subprocess.run([sys.executable, "-c", "import lightning"], env=environment)
    assert control.returncode == 0 and (tmp_path / "stolen").exists(), (
        "the import itself would steal"
    )
    (tmp_path / "stolen").unlink()
    words = [sys.executable, str(ROOT / script)]
    completed = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (
        completed.returncode == 2
        and "lightning 2.6.3 must not be used" in completed.stderr
        and "change every" in completed.stderr
    )
    assert not (tmp_path / "stolen").exists() and "Traceback" not in completed.stderr


def test_the_cure_for_a_blocked_release_is_the_constraints_file(tmp_path, monkeypatch):
    (tmp_path / "torch-2.9.1.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "none"), str(ROOT / "LICENSE")])
    with pytest.raises(KnownBadPackage, match=r"CVE-2026-24747") as caught:
        blocked_packages.check()
    assert "passwords" not in caught.value.cure and 'constraints.txt "torch"' in caught.value.cure
