"""`python -m tinyflux_pl.dashboards entity=TEAM`: create or update the workspaces."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from tinyflux_pl.config import redact
from tinyflux_pl.config.signatures import suggestion
from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.errors import ConfigError, MissingDependency, TinyFluxError
from tinyflux_pl.dashboards import publish
from tinyflux_pl.dashboards.workspaces import COMPARED, WORKSPACES

USAGE = """usage: python -m tinyflux_pl.dashboards entity=TEAM [KEY=VALUE ...]

  entity=TEAM          W&B user or team
  project=tinyflux_pl  W&B project
  only=NAME            one workspace: training, sweep or experts
  group=SWEEP          runs of one sweep, by the name of its folder
  columns=KEY,KEY      keys of the configuration in the comparison of a sweep, such as optimizer/lr
  dry_run=true         print what would be sent, send nothing"""
WHERE = "the command line"


@dataclass(frozen=True)
class Options:
    """The words of the command line."""

    entity: str
    project: str = "tinyflux_pl"
    only: str | None = None
    group: str | None = None
    columns: str = ",".join(COMPARED)
    dry_run: bool = False

    @property
    def chosen(self) -> list[str]:
        """Names of the workspaces."""
        return list(WORKSPACES) if self.only is None else [self.only]


def parse(words: Sequence[str]) -> Options:
    """The options; raises ConfigError for a word that is none of them."""
    keys = list(Options.__dataclass_fields__)
    values: dict[str, str | bool] = {}
    for word in words:
        key, mark, value = word.partition("=")
        if key not in keys or not mark or not value:
            cure = suggestion(key, keys) + "--help lists the keys"
            raise ConfigError(f"nothing reads {word}", where=WHERE, cure=cure)
        values[key] = value
    if "entity" not in values:
        raise ConfigError("no entity", where=WHERE, cure="add entity=USER_OR_TEAM")
    dry_run = values.get("dry_run", "false")
    if dry_run not in ("true", "false"):
        raise ConfigError(
            f"dry_run is {dry_run}", where=WHERE, cure="dry_run=true or dry_run=false"
        )
    values["dry_run"] = dry_run == "true"
    if values.get("only", "training") not in WORKSPACES:
        cure = f"choose one of {', '.join(WORKSPACES)}"
        raise ConfigError(f"no workspace {values['only']!r}", where=WHERE, cure=cure)
    return Options(**values)  # type: ignore[arg-type]


def run(words: Sequence[str]) -> None:
    """Create or update the chosen workspaces, or print their requests."""
    options = parse(words)
    if find_spec("wandb_workspaces") is None:
        raise MissingDependency(
            "workspaces need the package wandb-workspaces",
            where="tinyflux_pl.dashboards",
            cure="pip install 'tinyflux_pl[dashboards]'",
        )
    for name in options.chosen:
        workspace = WORKSPACES[name](
            options.entity, options.project, options.columns.split(","), options.group
        )
        if options.dry_run:
            print(json.dumps(publish.request(workspace), indent=2))
        else:
            print(f"{workspace.name}: {_published(workspace, name)}")


def _published(workspace: object, name: str) -> str:
    """The address of the workspace. Raises ConfigError where W&B refuses or is not reached."""
    import wandb

    try:
        return publish.publish(workspace, name)
    except (wandb.Error, ValueError) as error:
        raise ConfigError(
            f"W&B did not take the workspace: {error}",
            where=WHERE,
            cure="wandb login, and name a project that has at least one run: entity= project=",
        ) from error


@warnings_above_bars()
def main() -> None:
    """The command: prints errors in three lines, with their exit code."""
    redact.install()
    if sys.argv[1:] in ([], ["--help"], ["-h"]):
        print(USAGE)
        return
    try:
        run(sys.argv[1:])
    except TinyFluxError as error:
        print(redact.redact(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
