"""The pinned environment holds every dependency, agrees with pyproject, and none of the versions known to be bad."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.house.source import ROOT

# torch < 2.10: memory corruption under weights_only (CVE-2026-24747); hydra-core < 1.3.8: no block list of targets
KNOWN_BAD = {"torch": "<2.10", "hydra-core": "<1.3.8", "lightning": "<2.6.6", "omegaconf": ">=2.4"}
TORCHVISION_NEVER = "0.0.0"


def pins() -> dict[str, str]:
    """Name -> exact version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    entries = [line.split("#")[0].strip() for line in lines]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s+]+)", entry) for entry in entries if entry]
    assert all(found), "every line is name==version, without a build's suffix"
    names = [canonicalize_name(match[1]) for match in found]
    assert len(set(names)) == len(names), "one line a name: pip refuses two"
    return dict(zip(names, (match[2] for match in found), strict=True))


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    found = [Requirement(line) for line in (*project["dependencies"], *extras)]
    return [r for r in found if canonicalize_name(r.name) != canonicalize_name(project["name"])]


def test_every_requirement_is_pinned_within_its_range():
    pinned = pins()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} has no line in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


def test_no_pin_is_known_to_be_bad():
    pinned = pins()
    hits = [f"{n}=={pinned[n]}" for n, bad in KNOWN_BAD.items() if SpecifierSet(bad).contains(pinned[n])]
    assert not hits, hits
    assert pinned["torchvision"] == TORCHVISION_NEVER, "nothing here may need torchvision"


def test_makefile_installs_the_pinned_torch_first():
    text = (ROOT / "Makefile").read_text()
    assert f"TORCH := torch=={pins()['torch']}" in text
    recipes = [line for line in text.splitlines() if "pip install" in line]
    assert len(recipes) == 4 and recipes[0].rstrip().endswith("$(TORCH)")
    assert all("-c constraints.txt" in line for line in recipes[1:])
