"""The command line before Hydra sees it, and the entry that the root scripts share.

Everything here runs before torch is imported, so that a wrong word is answered at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tinyflux_pl.app import known_bad, redact
from tinyflux_pl.app.config import typed_line
from tinyflux_pl.app.config.free_text import quoted
from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import ConfigError, DiskFull, Interrupted, NotWritable, TinyFluxError
from tinyflux_pl.core.printable import printable

CONF = Path(__file__).resolve().parents[2] / "conf"
_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--info", "-i", "--experimental-rerun")
_FOLDERS = ("--config-path", "-cp", "--config-dir", "-cd")


def prepare(argv: list[str], root: Path, config_name: str) -> list[str]:
    """The line that Hydra may read: flags first, free text quoted, folders absolute; idempotent.

    Raise ConfigError on a flag, key, group, choice or `_target_` that does not exist or is not allowed.
    """
    multirun = any(flag in argv for flag in ("-m", "--multirun"))
    flags, overrides = _split(argv)
    overrides = [quoted(o, multirun=multirun) for o in overrides]
    args = _flags(flags)
    root, config_name = Path(args.config_path or root), args.config_name or config_name
    folders = [root, *([Path(args.config_dir)] if args.config_dir else [])]

    from tinyflux_pl.app.config import allowlist, hydra_node

    hydra_node.check_searchpath(folders, config_name, overrides)
    if args.shell_completion or args.hydra_help:
        return [*flags, *overrides]
    for folder in folders:
        if not folder.is_dir():
            cure = "run from a clone of the project, or name a folder that exists"
            raise ConfigError("no such folder of configurations", where=str(folder), cure=cure)

    from omegaconf import OmegaConf

    from tinyflux_pl.app.config.known_keys import composed, missing_keys

    for config in composed(root, config_name, overrides, args.config_dir):
        hydra_node.check(config)
        raw = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
        redact.check(raw)
        job = {key: value for key, value in raw.items() if key != "hydra"}
        allowlist.check_names(job)
        _check_home(job.get("paths"))
        missing = missing_keys(job)
        if missing and not (args.cfg or args.help or args.info):
            raise ConfigError(
                f"{' and '.join(missing)} must be given",
                where=f"conf/{config_name}.yaml",
                cure=f"add {' '.join(f'{m}=...' for m in missing)}",
            )
    return [*flags, *overrides]


def _check_home(paths: Any) -> None:
    """Raise ConfigError for a place that begins with ~: Hydra would make a folder of that name."""
    for name, place in paths.items() if isinstance(paths, dict) else ():
        if str(place).startswith("~"):
            what = f"{place} would be a folder called ~"
            raise ConfigError(what, where=f"paths.{name}", cure="write ${oc.env:HOME}, or the whole path")


def run(config_name: str, main: Callable[[dict[str, Any]], Any] | None = None, root: Path = CONF) -> None:
    """Prepare the line, let Hydra compose it, and call `main` with plain containers; exit non-zero on failure.

    `main` is the recipe of that name in app/run.py unless given; it returns an exit code, or for a sweeper
    the figure to optimise. A TinyFluxError is printed as its three lines, with the traceback before them
    under TINYFLUX_DEBUG=1: exit code 2 for a ConfigError, 128 + the number of a signal that stopped it, 1 else.
    """
    redact.install()
    try:
        known_bad.check()
    except known_bad.KnownBadPackage as error:
        sys.exit(_report(error))

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tinyflux_pl.app.config import judged_loader

    # Hydra then hands us its errors rather than printing and exiting
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    codes: list[int] = []

    def task(config: Any) -> Any:
        return _job(config, main or _recipe(config_name), codes)

    task.__module__ = config_name  # Hydra takes the job's name from it
    try:
        with judged_loader.installed():
            sys.argv[1:] = prepare(sys.argv[1:], root, config_name)
            hydra.main(version_base=None, config_path=str(root), config_name=config_name)(task)()
    except TinyFluxError as error:
        codes.append(_report(error))
    except (HydraException, OmegaConfBaseException) as error:
        from tinyflux_pl.app.config.known_keys import explained

        codes.append(_report(explained(error)))
    except BrokenPipeError:  # the reader left, as `| head` does; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        codes.append(141)
    except Exception as error:  # nobody expected it: its traceback, masked
        codes.append(_report(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        codes.append(130)
    if any(codes):
        sys.exit(max(codes))


def _recipe(name: str) -> Callable[[dict[str, Any]], Any]:
    from tinyflux_pl.app import run as recipes

    return getattr(recipes, name)


def _job(config: Any, main: Callable[[dict[str, Any]], Any], codes: list[int]) -> Any:
    """One run of the recipe inside Hydra. In a sweep a failure is printed and raised: the next job still runs."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from tinyflux_pl.app.config.compose import plain

    redact.install()  # a sweep's launcher may have given this job a process of its own
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        # Hydra's folder, also in a sweep, where every job has its own; short to read and to type.
        folder = Path(HydraConfig.get().runtime.output_dir)
        folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        overrides = [typed_line.override(line) for line in HydraConfig.get().overrides.task]
        resolved = plain(config)
        redact.check(resolved)
        said = {"run_dir": str(folder), "overrides": overrides, "flags": typed_line.flags(sys.argv[1:], sweep)}
        result = _called(main, {**resolved, **said})
    except BrokenPipeError:
        raise
    except Exception as error:  # told here, masked: W&B and Hydra would print the traceback as it is
        code = _report(error)
        codes.append(code)
        if sweep and not isinstance(error, Interrupted):
            raise
        sys.exit(code)
    if type(result) is int and result:
        codes.append(result)
    return result


def _called(main: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """The recipe's result; a full disk or a missing right is told alike, whether a library met it or we did."""
    try:
        with interruption.listening():
            return main(config)
    except OSError as error:
        file = Path(str(error.filename or config["run_dir"]))
        cure = "write elsewhere: paths.root=/another/disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"no room to write {file.name}"
            raise DiskFull(what, where=str(file.parent), cure=f"free some space, or {cure}") from error
        if error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):  # a socket's names no file
            what = f"{file.name} may not be opened or changed ({error.strerror})"
            raise NotWritable(
                what, where=str(file.parent), cure=f"give this user the right to it, or {cure}"
            ) from error
        raise


def _report(error: Exception) -> int:
    """Print an error once, redacted, with its traceback if it is none of ours; its exit code."""
    ours = isinstance(error, TinyFluxError)
    if not getattr(error, "reported", False):
        vars(error)["reported"] = True  # travels with the error out of a sweep's job
        if "tqdm" in sys.modules and not isinstance(error, ConfigError):
            print(file=sys.stderr)  # a bar may have been left in the middle of its line
        debug = os.environ.get("TINYFLUX_DEBUG") == "1"
        trace = "".join(traceback.format_exception(error)) if debug or not ours else ""
        print(printable(redact.redact(trace + (str(error) if ours else ""))), file=sys.stderr)
    return error.exit_code if ours else 1


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides, wherever they stand; folders made absolute."""
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
        if not value and name in _WITH_VALUE + _FOLDERS and rest and not rest[0].startswith("-") and "=" not in rest[0]:
            value = rest.pop(0)
        if value:
            flags.append(str(Path(value).absolute()) if name in _FOLDERS and "://" not in value else value)
    return flags, overrides


def _flags(flags: list[str]) -> Any:
    """Hydra's own reading of the flags; raise ConfigError on one that it does not have."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    known = {name: action.nargs == 0 for action in parser._actions for name in action.option_strings}
    for token in flags:
        if token.startswith("--") and token not in known:
            name = token.lstrip("-")
            raise ConfigError(
                f"unknown flag: {token}", where="the command line", cure=f"write {name}=... without dashes"
            )
    args = parser.parse_args(flags)
    if args.experimental_rerun:
        raise ConfigError(
            "--experimental-rerun unpickles a file", where=args.experimental_rerun, cure="repeat the line with run=NAME"
        )
    return args
