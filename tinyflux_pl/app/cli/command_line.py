"""Entry point of the root scripts: check the line, start Hydra, report errors in three lines."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app.cli import help_text, process_settings, standard_streams, sweep_job
from tinyflux_pl.app.cli.check_line import CONF, added_folders, check_line
from tinyflux_pl.app.drawing import from_image
from tinyflux_pl.config import blocked_packages, command_words, redact
from tinyflux_pl.core import console_log, interruption
from tinyflux_pl.core.errors import ConfigError, DiskFull, Interrupted, NotWritable, TinyFluxError
from tinyflux_pl.core.printable import printable

__all__ = ["CONF", "run"]


def run(
    config_name: str, main: Callable[[dict[str, Any]], Any] | None = None, root: Path = CONF
) -> None:
    """Prepare the command line, let Hydra compose it and call `main` with plain containers.

    Exits non-zero on failure. `main` is the recipe of that name in app/run.py unless given; it
    returns an exit code, or for a sweeper the figure to optimise. A TinyFluxError is printed as its
    three lines, with the traceback before them under TINYFLUX_DEBUG=1: exit code its own
    (core.errors), 128 + the number of a signal that stopped it, 1 else.
    """
    standard_streams.make_robust()
    process_settings.apply()
    redact.install()
    try:
        blocked_packages.check()
    except blocked_packages.KnownBadPackage as error:
        sys.exit(_report(error))
    if sys.argv[1:] in (["--help"], ["-h"]):
        try:
            print(help_text.help_page(config_name, [root]), flush=True)
        except BrokenPipeError:
            sys.exit(_broken_pipe_exit_code())
        return

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tinyflux_pl.config import checked_loader

    # Hydra then hands us its errors rather than printing and exiting
    os.environ["HYDRA_FULL_ERROR"] = "1"
    codes: list[int] = []
    argv, started_by = sys.argv, os.getpid()  # a launcher's own process has others

    def task(config: Any) -> Any:
        here = os.getpid() == started_by
        return _job(config, main or _recipe(config_name), codes, argv, here=here)

    task.__module__ = config_name  # Hydra takes the job's name from it
    try:
        with checked_loader.installed():
            line = check_line(from_image.with_recorded_overrides(sys.argv[1:]), root, config_name)
            if any(flag in line.arguments for flag in ("--help", "-h")):
                print(help_text.help_page(config_name, [root, *added_folders(line.arguments)]))
                return
            if main is None and len(line.jobs) > 1 and _runs_locally(line.arguments):
                _check_jobs(config_name, line.jobs)
            sys.argv[1:] = line.arguments
            hydra.main(version_base=None, config_path=str(root), config_name=config_name)(task)()
    except TinyFluxError as error:
        codes.append(_report(error))
    except (HydraException, OmegaConfBaseException) as error:
        from tinyflux_pl.config.composition_errors import explained

        codes.append(_report(explained(error)))
    except BrokenPipeError:
        codes.append(_broken_pipe_exit_code())
    except OSError as error:  # Hydra's, at a folder that cannot be made
        codes.append(_report(error if hasattr(error, "reported") else _system_error(error)))
    except Exception as error:  # unexpected: its traceback, masked
        codes.append(_report(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        codes.append(130)
    if any(codes):
        sys.exit(max(codes))


def _broken_pipe_exit_code() -> int:
    """The exit code after the reader of a pipe has closed it, as `| head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at exit
    return 141


def _runs_locally(arguments: Sequence[str]) -> bool:
    """True if the jobs run on this machine: another one may have another GPU."""
    return not any(a.lstrip("+").startswith("hydra/launcher=submitit") for a in arguments)


def _check_jobs(name: str, jobs: Sequence[dict[str, Any]]) -> None:
    """Raise the first error of any sweep job's checks, with the number of the job."""
    from tinyflux_pl.app.job_checks import CHECKS

    for number, job in enumerate(jobs):
        try:
            CHECKS[name](job)
        except TinyFluxError as error:
            error.args = (
                f"job {number} of 0 to {len(jobs) - 1}, none of which was started: {error}",
            )
            raise


def _system_error(error: OSError) -> TinyFluxError:
    """An operating-system error outside a job as one of ours, with its file."""
    where = str(error.filename or "this machine")
    cure = "choose another folder (run=NAME, paths.root=FOLDER), or give this user the right to it"
    return ConfigError(
        f"the system refused: {(error.strerror or str(error)).lower()}", where=where, cure=cure
    )


def _recipe(name: str) -> Callable[[dict[str, Any]], Any]:
    from tinyflux_pl.app import run

    return getattr(run, name)


def _job(
    config: Any,
    main: Callable[[dict[str, Any]], Any],
    codes: list[int],
    argv: Sequence[str],
    *,
    here: bool,
) -> Any:
    """One run of the recipe inside Hydra.

    In a sweep a failure is printed and raised, and the next job still runs. `here`: in the process
    of the command `argv`, and not in one of a launcher.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from tinyflux_pl.config.build import plain

    if not here:
        standard_streams.make_robust()
        process_settings.apply()
        redact.install()
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        # Hydra's folder, also in a sweep, where every job has its own; short to read and to type.
        folder = Path(HydraConfig.get().runtime.output_dir)
        folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        overrides = [command_words.override(line) for line in HydraConfig.get().overrides.task]
        resolved = plain(config)
        redact.check(resolved)
        flags = command_words.flags(list(argv[1:]), sweep)
        context = {"run_dir": str(folder), "overrides": overrides, "flags": flags}
        recipe = functools.partial(_run_recipe, main)
        if sweep:
            result = sweep_job.run(recipe, {**resolved, **context}, argv)
        else:
            result = recipe({**resolved, **context})
    except BrokenPipeError:
        raise
    except Exception as error:  # reported here, masked: W&B and Hydra would print the raw traceback
        code = _report(error)
        codes.append(code)
        if not here:
            raise sweep_job.picklable_error(error) from None
        if sweep and not isinstance(error, Interrupted):
            raise
        sys.exit(code)
    if type(result) is int and result:
        codes.append(result)
    return result


def _run_recipe(main: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """Run the recipe; a full disk or a missing permission raises DiskFull or NotWritable."""
    try:
        with interruption.listening(), console_log.warnings_above_bars():
            return main(config)
    except OSError as error:
        file = Path(str(error.filename or config["run_dir"]))
        cure = "write elsewhere: paths.root=/another/disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"no space to write {file.name}"
            raise DiskFull(
                what, where=str(file.parent), cure=f"free some space, or {cure}"
            ) from error
        # a socket's names no file
        if error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = f"{file.name} may not be opened or changed ({error.strerror})"
            raise NotWritable(
                what, where=str(file.parent), cure=f"give this user the right to it, or {cure}"
            ) from error
        raise


def _report(error: Exception) -> int:
    """Print an error once, redacted, with its traceback if it is none of ours; its exit code."""
    is_known = isinstance(error, TinyFluxError)
    if not getattr(error, "reported", False):
        vars(error)["reported"] = True  # travels with the error out of a sweep's job
        if "tqdm" in sys.modules and not isinstance(error, ConfigError):
            print(file=sys.stderr)  # a bar may have been left in the middle of its line
        debug = os.environ.get("TINYFLUX_DEBUG") == "1"
        trace = "".join(traceback.format_exception(error)) if debug or not is_known else ""
        print(printable(redact.redact(trace + (str(error) if is_known else ""))), file=sys.stderr)
    return error.exit_code if is_known else 1
