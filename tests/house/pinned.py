"""The project's declared pins, hashes and requirements."""

import re
import tomllib
from dataclasses import dataclass, field

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.source import ROOT

CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "requirements-test.lock"


@dataclass
class Locked:
    """One release of the lock: where it is wanted, and the sha256 of each of its files."""

    version: str
    marker: str
    hashes: list[str] = field(default_factory=list)


def pins() -> dict[str, str]:
    """Name -> exact version, of constraints.txt."""
    entries = [line.split("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s+]+)", entry) for entry in entries if entry]
    assert all(matches), "every line is name==version, without a build's suffix"
    names = [canonicalize_name(match[1]) for match in matches]
    assert len(set(names)) == len(names), "one line a name: pip refuses two"
    return dict(zip(names, (match[2] for match in matches), strict=True))


def locked() -> dict[str, Locked]:
    """Name -> release, of the lock; nothing in it may be of another form."""
    entries: dict[str, Locked] = {}
    for line in LOCK.read_text().splitlines():
        if line.startswith("#"):
            continue
        if release := re.fullmatch(r"([a-z0-9-]+)==([^\s;+]+)(?: ; (.+))? \\", line):
            assert release[1] not in entries, "one release a name"
            entries[release[1]] = Locked(release[2], release[3] or "")
        else:
            digest = re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line)
            assert digest, f"neither a release nor a hash: {line}"
            list(entries.values())[-1].hashes.append(digest[1])
    return entries


def requirements(*extras: str) -> list[Requirement]:
    """Requirements of pyproject.toml with some of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for e in extras for line in project["optional-dependencies"][e]),
    ]
    collected: list[Requirement] = []
    for requirement in map(Requirement, lines):
        if canonicalize_name(requirement.name) != canonicalize_name(project["name"]):
            collected.append(requirement)
            continue
        nested = requirement.extras - set(extras)
        collected += requirements(*sorted(nested)) if nested else []
    return collected
