"""The table of docs/families.md: one line per family from configuration, structure, measurement."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir

from tests.house.source import ROOT

FILE = ROOT / "docs" / "families.md"
CONF = ROOT / "conf"
HEAD = (
    "| model= | network (diffusers) | parameters | text= | codec= | sampler= | guidance= | final "
    "image |"
)
WRITE = bool(os.environ.get("FAMILIES_WRITE"))
LARGEST = 1e-4


def families() -> list[str]:
    """Every conf/model that comes from a release."""
    return sorted(
        f.stem
        for f in (CONF / "model").glob("*.yaml")
        if re.search(r"^release:|- flux\d|- sd", f.read_text(), re.M)
    )


@dataclass(frozen=True)
class Family:
    """The documented line of conf/model/<name>.yaml, except the measured difference."""

    name: str
    kind: str
    parameters: int
    choices: dict[str, str]

    @classmethod
    def of(cls, name: str) -> Family:
        """Composed as by generate.py; the full-size network is counted on the meta device."""
        import torch
        from omegaconf import OmegaConf

        from tinyflux_pl.config.allowlist import resolve

        with initialize_config_dir(str(CONF), version_base=None):
            config = compose("generate", [f"model={name}"], return_hydra_config=True)
        model: Any = OmegaConf.to_container(config.model)
        denoiser = vars(__import__(resolve(model["_target_"], "").__module__, fromlist=["_"]))
        released = next(
            c.released for c in denoiser.values() if isinstance(c, type) and "released" in vars(c)
        )
        parameters = sum(p.numel() for p in released.skeleton(model["structure"]).parameters())
        assert torch.get_default_device().type == "cpu"
        return cls(name, released.kind, parameters, dict(config.hydra.runtime.choices))

    def line(self, bound: float) -> str:
        """The family's line with `bound` as the largest difference of a final image."""
        parts = [self.choices[group] for group in ("text", "codec", "sampler", "guidance")]
        cells = (self.name, self.kind, f"{self.parameters:,}", *parts, f"<= {bound:.0e}")
        return "| " + " | ".join(cells) + " |"


def check(name: str, measured: float) -> None:
    """Assert that the docs hold the family's line and that the measured value keeps its bound.

    With FAMILIES_WRITE=1 the line is written instead; its bound is the power of ten above three
    times the measured value. With FAMILIES_WRITE=1 the line is written instead, its bound the power
    of ten above three times the measured.
    """
    family, text = Family.of(name), FILE.read_text()
    documented = re.search(rf"^\| {re.escape(name)} \|.*<= (\S+) \|$", text, re.M)
    if WRITE:
        bound = 10.0 ** math.ceil(math.log10(max(3 * measured, 1e-7)))
        FILE.write_text(_with_line(text, name, family.line(bound)))
        return
    assert documented, (
        f"docs/families.md has no line of {name}: FAMILIES_WRITE=1 python -m pytest tests/families"
    )
    bound = float(documented[1])
    assert documented[0] == family.line(bound), (
        f"docs/families.md is out of date: {family.line(bound)}"
    )
    assert measured <= bound <= LARGEST, f"{name}: measured {measured:.1e}, documented {bound:.0e}"


def lines() -> list[str]:
    """The families that the table names, in its order."""
    table = FILE.read_text().partition(HEAD)[2].split("\n\n")[0]
    return re.findall(r"^\| (\w+) \|", table, re.M)


def _with_line(text: str, name: str, line: str) -> str:
    head, _, rest = text.partition(HEAD)
    rule, *rows = rest.strip("\n").split("\n\n")[0].split("\n")
    kept = [row for row in rows if not row.startswith(f"| {name} |")]
    after = rest.strip("\n").partition("\n\n")[2]
    return (
        head + "\n".join([HEAD, rule, *sorted([*kept, line])]) + ("\n\n" + after if after else "\n")
    )
