"""Commit of the project's checkout, and whether the checkout has uncommitted changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE = 10  # seconds; a network file system may be slow


def git_state(folder: Path = CHECKOUT) -> dict[str, str | bool | None]:
    """`git_commit` and `git_dirty`; both None where the package is no checkout or git is missing.

    Only `folder` itself counts as the checkout, no repository around it.
    """
    unknown = {"git_commit": None, "git_dirty": None}
    if not (folder / ".git").exists():
        return unknown
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"git_commit": commit, "git_dirty": bool(changes)}


def _git(folder: Path, *words: str) -> str:
    line = ["git", "--no-optional-locks", "-C", str(folder), *words]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return ended.stdout.strip()
