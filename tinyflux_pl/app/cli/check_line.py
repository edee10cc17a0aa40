"""Check the command line before Hydra reads it: flags, overrides, and every resulting job.

Everything here runs before torch is imported, so that a mistake is reported at once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from tinyflux_pl.app.cli.standard_streams import decoded
from tinyflux_pl.config import redact
from tinyflux_pl.config.quoting import quoted
from tinyflux_pl.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[3] / "conf"
_WITH_VALUE = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-name",
    "-cn",
    "--info",
    "-i",
    "--experimental-rerun",
)
_SHOWING = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--shell-completion")
# a search is several runs
SEARCH = re.compile(r"hparams_search=(?!null$).+")
_FOLDERS = ("--config-path", "-cp", "--config-dir", "-cd")


@dataclass(frozen=True)
class Line:
    """A checked command line: the arguments for Hydra, and its jobs as plain containers."""

    arguments: list[str]
    jobs: list[dict[str, Any]]
    multirun: bool


def check_line(argv: list[str], root: Path, script: str) -> Line:
    """The jobs of a line, and its arguments for Hydra: quoted, folders absolute; idempotent.

    Raise ConfigError on a flag, key, group, choice or `_target_` that does not exist or is not
    allowed. For the project's own configuration every plain value is checked too.
    """
    is_project_conf = root == CONF
    multirun = any(flag in argv for flag in ("-m", "--multirun"))
    flags, overrides = _split(decoded(argv))
    searching = any(SEARCH.fullmatch(override) for override in overrides)
    # Hydra shows a configuration of one run only
    if searching and not multirun and not any(flag in _SHOWING for flag in flags):
        flags.append("--multirun")
        multirun = True
    overrides = [quoted(o, multirun=multirun) for o in overrides]
    args = _flags(flags)
    root, config_name = Path(args.config_path or root), args.config_name or script
    folders = [root, *([Path(args.config_dir)] if args.config_dir else [])]

    from tinyflux_pl.config import allowlist, hydra_node

    hydra_node.check_searchpath(folders, config_name, overrides)
    if args.shell_completion or args.hydra_help:
        return Line([*flags, *overrides], [], multirun)
    for folder in folders:
        if not folder.is_dir():
            cure = "run from a clone of the project, or name a folder that exists"
            raise ConfigError("no such folder of configurations", where=str(folder), cure=cure)

    from omegaconf import OmegaConf

    from tinyflux_pl.config import check_config
    from tinyflux_pl.config.dotted_keys import missing_keys
    from tinyflux_pl.config.suggest import composed

    several = (
        searching
        or multirun
        or any(line.lstrip("+").startswith("hydra.mode=") for line in overrides)
    )
    display_only = args.cfg or args.help or args.info
    configs = composed(root, config_name, overrides, args.config_dir, multirun=several)
    for config in configs:
        hydra_node.check(config)
        raw = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
        redact.check(raw)
        job = {key: value for key, value in raw.items() if key != "hydra"}
        allowlist.check_names(job)
        _check_home(job.get("paths"))
        missing = missing_keys(job)
        if missing and not display_only:
            raise ConfigError(
                f"{' and '.join(missing)} must be given",
                where=f"conf/{config_name}.yaml",
                cure=f"add {' '.join(f'{m}=...' for m in missing)}",
            )
    jobs: list[dict[str, Any]] = []
    if is_project_conf and not display_only:
        jobs = check_config.check(configs, script, multirun=multirun)
    return Line([*flags, *overrides], jobs, multirun)


def _check_home(paths: Any) -> None:
    """Raise ConfigError for a path that begins with ~: Hydra would create a folder of that name."""
    for name, path in paths.items() if isinstance(paths, dict) else ():
        if str(path).startswith("~"):
            what = f"{path} would be a folder called ~"
            cure = "write ${oc.env:HOME}, or the full path"
            raise ConfigError(what, where=f"paths.{name}", cure=cure)


def added_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of configurations that flags name."""
    pairs = pairwise(arguments)
    return [Path(value) for flag, value in pairs if flag in _FOLDERS]


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides, in any order; folders made absolute."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("-"):
            overrides.append(token)
            continue
        name, _, value = token.partition("=")
        flags.append(name)
        if (
            not value
            and name in _WITH_VALUE + _FOLDERS
            and rest
            and not rest[0].startswith("-")
            and "=" not in rest[0]
        ):
            value = rest.pop(0)
        if value:
            flags.append(
                str(Path(value).absolute()) if name in _FOLDERS and "://" not in value else value
            )
    return flags, overrides


def _flags(flags: list[str]) -> Any:
    """Parse the flags with Hydra's own parser; raise ConfigError for an unknown one."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    options = {name for action in parser._actions for name in action.option_strings}
    for token in flags:
        if token.startswith("--") and token not in options:
            name = token.lstrip("-")
            raise ConfigError(
                f"unknown flag: {token}",
                where="the command line",
                cure=f"write {name}=... without dashes",
            )
    try:
        with redirect_stderr(io.StringIO()) as stderr:
            args = parser.parse_args(flags)
    except SystemExit:
        message = stderr.getvalue().strip().rpartition("error: ")[2]
        what = message or f"no such flags: {' '.join(flags)}"
        cure = "--help names the flags; a flag's value follows it"
        raise ConfigError(what, where="the command line", cure=cure) from None
    if args.experimental_rerun:
        raise ConfigError(
            "--experimental-rerun unpickles a file",
            where=args.experimental_rerun,
            cure="repeat the line with run=NAME",
        )
    return args
