"""The pinned environment has every dependency, agrees with pyproject and installs by hash."""

import re
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.pinned import locked, pins, requirements
from tests.house.source import ROOT

FORMATS = {"pillow-heif", "pillow-jxl-plugin"}  # of an extra that no test needs
# torch, what may not come, and tools of `make lint`
UNPINNED = {"torch", "torchvision", "ruff", "ty", *FORMATS}
ELSEWHERE = {"colorama", "httpx2-jsfetch"}  # wanted on other platforms alone
TORCHVISION_NEVER = "0.0.0"


def test_every_requirement_is_pinned_within_its_range():
    pinned = pins()
    for requirement in requirements("test", "dev", "formats"):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} has no line in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"
    assert pinned["torchvision"] == TORCHVISION_NEVER, "nothing here may need torchvision"


def test_the_lock_equals_the_constraints_with_hashes():
    pinned, lock = pins(), locked()
    assert {n: v for n, v in pinned.items() if n not in UNPINNED} == {
        n: r.version for n, r in lock.items() if n not in ELSEWHERE
    }
    assert all(r.hashes and len(set(r.hashes)) == len(r.hashes) for r in lock.values())
    marked = {name for name, release in lock.items() if release.marker}
    assert marked >= ELSEWHERE and not any("never" in release.marker for release in lock.values())


def test_every_dependency_of_the_lock_is_in_the_lock():
    """Every needed distribution is brought by the lock or by torch."""
    lock, seen = set(locked()), set()
    waiting = [r for r in requirements("test") if canonicalize_name(r.name) != "torch"]
    waiting += [r for r in map(Requirement, metadata.requires("torch") or []) if not cuda(r)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or name == "torch" or not applies(requirement):
            continue
        seen.add(name)
        assert name in lock, f"{requirement} is not in the lock: make lock"
        waiting += map(Requirement, metadata.requires(name) or [])


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(
        {**default_environment(), "extra": ""}
    )


def cuda(requirement: Requirement) -> bool:
    return canonicalize_name(requirement.name).startswith(("nvidia-", "cuda-", "triton"))


def test_makefile_installs_by_hash_with_a_fixed_torch():
    text = (ROOT / "Makefile").read_text()
    assert f"TORCH := torch=={pins()['torch']}" in text and "LOCK := requirements-test.lock" in text
    recipes = [line.strip() for line in text.splitlines() if line.startswith("\t$(PIP)")]
    by_hash = [line for line in recipes if "--require-hashes" in line]
    assert (
        len(by_hash) == 2
        and "-r $(LOCK)" in by_hash[1]
        and "--no-deps --no-build-isolation" in by_hash[1]
    )
    for line in recipes:
        assert line in by_hash or "--no-deps" in line or "-c constraints.txt" in line, line
    torch_requirements = re.search(r"TORCH_WANTS := (.+)", text)[1].split()
    needs = [
        r for r in map(Requirement, metadata.requires("torch") or []) if applies(r) and not cuda(r)
    ]
    assert {canonicalize_name(r.name) for r in needs} <= set(torch_requirements), (
        "torch wants more than the lock holds: make lock"
    )
