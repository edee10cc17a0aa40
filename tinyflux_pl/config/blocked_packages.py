"""Package releases that must not be installed, checked before any of them is imported."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinyflux_pl.core.errors import TinyFluxError


class KnownBadPackage(TinyFluxError):
    """An installed package version with a known compromise or remote-code vulnerability."""

    exit_code = 2


@dataclass(frozen=True)
class Bad:
    """A package, by normalised name, and its bad versions: `releases`, all below one, or all."""

    name: str
    why: str
    releases: tuple[str, ...] = ()
    below: str = ""
    stole: bool = False  # the release itself was malicious: whatever it could read has leaked

    def holds(self, version: str) -> bool:
        """True if a version (a local part is ignored) is one of the bad ones."""
        if self.releases or self.below:
            public = version.partition("+")[0]
            return public in self.releases or (
                bool(self.below) and _release(public) < _release(self.below)
            )
        return True


_LIGHTNING = "it stole credentials on import, GHSA-w37p-236h-pfx3"
_HPARAMS = (
    "it ran code named by a checkpoint's hyperparameters, Lightning-AI/pytorch-lightning#21822"
)
_MINER = ("8.3.41", "8.3.42", "8.3.45", "8.3.46")
KNOWN_BAD = (
    Bad("lightning", _LIGHTNING, ("2.6.2", "2.6.3"), stole=True),
    Bad("pytorch-lightning", _LIGHTNING, ("2.6.2", "2.6.3"), stole=True),
    Bad("litellm", "it stole credentials, BerriAI/litellm#24518", ("1.82.7", "1.82.8"), stole=True),
    Bad(
        "ultralytics",
        "it fetched and ran a miner, ultralytics/ultralytics#18027",
        _MINER,
        stole=True,
    ),
    Bad("torchtriton", "a stranger under the name of a part of torch, December 2022", stole=True),
    Bad("lightning", _HPARAMS, below="2.6.6"),
    Bad("pytorch-lightning", _HPARAMS, below="2.6.6"),
    Bad("torch", "memory corruption in spite of weights_only=True, CVE-2026-24747", below="2.10"),
    Bad(
        "hydra-core",
        "it builds blocked targets under another name, hydra-ecosystem/hydra#3409",
        below="1.3.8",
    ),
)


def hits(releases: Iterable[tuple[str, str]]) -> list[tuple[Bad, str]]:
    """Blocked releases among (name, version) pairs, malicious ones first; names in any spelling."""
    normalized = [(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in releases]
    pairs = ((bad, *release) for release in normalized for bad in KNOWN_BAD)
    blocked = [(bad, v) for bad, name, v in pairs if bad.name == name and bad.holds(v)]
    return sorted(blocked, key=lambda hit: not hit[0].stole)


def installed() -> Iterator[tuple[str, str]]:
    """(name, version) of every installed distribution, by folder names and without imports."""
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or ".")
        except OSError:  # an archive, or a folder that is not there
            continue
        for name in names:
            stem, kind = os.path.splitext(name)
            parts = stem.split("-")
            if kind in (".dist-info", ".egg-info") and len(parts) > 1:
                yield parts[0], parts[1]


def check() -> None:
    """Raise KnownBadPackage if a release on the list is installed; takes a millisecond or two."""
    for bad, version in hits(installed()):
        cure = f'pip install -c constraints.txt "{bad.name}"'
        if bad.stole:
            cure = (
                f"pip uninstall {bad.name}, and change every password and token that this machine "
                "has held"
            )
        raise KnownBadPackage(
            f"{bad.name} {version} must not be used: {bad.why}", where=sys.prefix, cure=cure
        )


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at their end."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
