"""Methods whose YAML sets data or the cache folder, which extraction must read too."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"


def chooses_data(word: str) -> bool:
    """True for an override `method=NAME` of such a method."""
    key, _, name = word.partition("=")
    file = CONF / "method" / f"{name}.yaml"
    if key != "method" or not name.isidentifier() or not file.is_file():
        return False
    node = OmegaConf.load(file)
    assert isinstance(node, DictConfig)
    return any(key in node for key in ("data", "paths")) or any(
        str(key).startswith("override /data@")
        for entry in node.get("defaults", [])
        if isinstance(entry, DictConfig)
        for key in entry
    )
