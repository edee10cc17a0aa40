"""Weights by name: a local path first, else the safe files of a pinned revision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tinyflux_pl.core.errors import ConfigError, HubError, UntrustedFile
from tinyflux_pl.weights import download_hashes as fetch_record

SAFE_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
DEFAULT_ALLOW = tuple(f"*{suffix}" for suffix in SAFE_SUFFIXES)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
REVISION = re.compile(r"[0-9a-f]{40}")


def resolve(
    name_or_path: str | Path, revision: str | None = None, allow: Sequence[str] = DEFAULT_ALLOW
) -> Path:
    """The local file or folder behind a name.

    A path that exists wins. `owner/name` is a repository, and needs the 40 hex digits of a commit;
    of it only files that match `allow` come, and `allow` may name safe formats alone. What comes is
    held to the sha256 of the first time.
    Raises ConfigError for a missing path, HubError for a repository that is unpinned, unreachable,
    changed or without such files, UntrustedFile for a pattern that could bring a pickle.
    """
    local = Path(name_or_path).expanduser()
    if local.exists():
        return local
    name = str(name_or_path)
    if (
        isinstance(name_or_path, Path)
        or not REPOSITORY.fullmatch(name)
        or Path(name).suffix in (*SAFE_SUFFIXES, ".gguf")
    ):
        raise ConfigError(
            f"no file or folder {name!r}",
            where=str(Path.cwd()),
            cure="give an existing path, or owner/name of a repo",
        )
    if revision is None or not REVISION.fullmatch(revision):
        raise HubError(
            f"{name!r} is not a local folder, and as a repository it is not pinned "
            f"(revision={revision!r})",
            where=name,
            cure="give revision=<the 40 hex digits of a commit>, or a path that exists",
        )
    for pattern in allow:
        if not pattern.endswith(SAFE_SUFFIXES):
            raise UntrustedFile(
                f"{pattern!r} could bring a file that must be unpickled",
                where=name,
                cure=f"end it in {SAFE_SUFFIXES}",
            )
    return _fetch(name, revision, list(allow))


def _fetch(repository: str, revision: str, allow: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=allow))
    # OSError, ValueError, those of its two transports, and some of its own
    except Exception as error:
        raise HubError(
            f"could not fetch {repository}@{revision[:8]}: {type(error).__name__}",
            where=repository,
            cure="check the name, the revision and the network (HF_HUB_OFFLINE?), or download it "
            "and give the folder",
        ) from error
    names = [
        file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    fetched = [name for name in names if any(fnmatch(name, pattern) for pattern in allow)]
    if not fetched:
        raise HubError(
            f"{repository}@{revision[:8]} has none of {allow}",
            where=repository,
            cure="choose a revision with safetensors weights",
        )
    fetch_record.check(folder, fetched, f"{repository}@{revision[:8]}")
    return folder
