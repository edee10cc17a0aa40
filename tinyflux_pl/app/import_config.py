"""Import settings of the training framework's YAML, `_base_` included, as a Hydra experiment.

python -m tinyflux_pl.app.import_config old/my_experiment.yaml conf/experiment/my_experiment.yaml
python train.py experiment=my_experiment
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tinyflux_pl.config.imported_keys import GROUPS, Imported, translated
from tinyflux_pl.config.inherited_yaml import read_inherited
from tinyflux_pl.core import files
from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.errors import ConfigError, TinyFluxError

CONF = Path(__file__).resolve().parents[2] / "conf"


@warnings_above_bars()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the error's three lines and exit code where it is refused."""
    name = "python -m tinyflux_pl.app.import_config"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="the old YAML file")
    parser.add_argument("target", type=Path, help="a new file, such as conf/experiment/NAME.yaml")
    chosen = parser.parse_args(arguments)
    try:
        print("\n".join(import_config(chosen.source, chosen.target)))
    except TinyFluxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def import_config(source: Path, target: Path) -> list[str]:
    """Write the experiment; returns the report, which the file holds too.

    Each key and value is judged as train.py judges them. Raises ConfigError for a file that exists,
    settings that nothing can be made of, and a value that train.py refuses; writes nothing then.
    """
    if target.exists():
        raise ConfigError("it exists", where=str(target), cure="name a new file")
    offered = {group: _choices(group) for group in (*GROUPS.values(), "data")}
    imported = translated(read_inherited(source), offered)
    if not imported.renamed:
        what = "none of its keys has a meaning here"
        raise ConfigError(what, where=str(source), cure="name a file of that framework")
    _require_valid(imported)
    files.write_bytes(target, _experiment(imported, source, target.stem).encode())
    use = f"python train.py experiment={target.stem}"
    if target.resolve().parent != CONF / "experiment":
        use = f"move it into conf/experiment, then {use}"
    return [*imported.lines(), f"written: {target}; use: {use}"]


def _choices(group: str) -> set[str]:
    return {file.stem for file in (CONF / group).glob("*.yaml")}


def _require_valid(imported: Imported) -> None:
    """Compose and check train.py's configuration with the imported settings."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tinyflux_pl.config import schema
    from tinyflux_pl.config.build import check_binds
    from tinyflux_pl.config.dotted_keys import missing_keys

    line = [f"{group}={choice}" for group, choice in imported.choices.items()]
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("train", line)
    OmegaConf.set_struct(config, True)
    for old, new, _ in imported.renamed:
        if new not in imported.values:
            continue
        try:
            OmegaConf.update(config, new, imported.values[new])
        except (HydraException, OmegaConfBaseException) as error:
            cure = f"take {old} out of the file: its {new} does not exist with {' '.join(line)}"
            raise ConfigError(f"{new} cannot be set", where=old, cure=cure) from error
    for key in missing_keys(OmegaConf.to_container(config)):
        OmegaConf.update(config, key, "to_be_chosen")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    schema.read_without_torch(resolved, "train")
    check_binds(resolved)


def _experiment(imported: Imported, source: Path, name: str) -> str:
    """The text of the experiment: choices, values, and the report as comments."""
    nested = OmegaConf.create({})
    for key, value in imported.values.items():
        OmegaConf.update(nested, key, value)
    defaults = [{f"override /{group}": choice} for group, choice in imported.choices.items()]
    body = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) + OmegaConf.to_yaml(nested)
    report = "".join(f"# {line}\n" for line in "\n".join(imported.lines()).splitlines())
    head = (
        f"# @package _global_\n# Imported from {source.name}: python train.py experiment={name}\n"
    )
    return f"{head}{body}\n{report}"


if __name__ == "__main__":
    sys.exit(main())
