"""Export a trained network or control branch in another library's layout, and read it back.

python -m tinyflux_pl.app.export_model outputs/RUN folder
python -m tinyflux_pl.app.export_model outputs/RUN folder --layout bfl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, TinyFluxError


@warnings_above_bars()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the error's three lines and exit code where it is refused."""
    name = "python -m tinyflux_pl.app.export_model"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="a run's folder, or a checkpoint's")
    parser.add_argument("target", type=Path, help="a new folder")
    parser.add_argument("--layout", default="diffusers", help="diffusers, or bfl (FLUX.1)")
    parser.add_argument("--weights", default="averaged", choices=("averaged", "raw"))
    chosen = vars(parser.parse_args(arguments))
    try:
        print(export_model(**chosen))
    except TinyFluxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def export_model(
    source: Path, target: Path, layout: str = "diffusers", weights: str = "averaged"
) -> str:
    """Write a checkpoint's network or control branch into a new folder, read back and compared.

    ConfigError for a folder that exists and a layout that the network does not have,
    CheckpointMismatch for an adapter and for an export that answers otherwise.
    """
    from tinyflux_pl.denoisers.network_export import exported, exported_branch
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.inference.pipeline import Pipeline
    from tinyflux_pl.methods.registry import method_of

    if target.exists():
        raise ConfigError("it exists", where=str(target), cure="name a new folder")
    checkpoint = open_checkpoint(source)
    exports_branch = method_of(checkpoint.config).exports_branch
    if "base" in checkpoint.config and not exports_branch:
        cure = "merge it first: python -m tinyflux_pl.app.adapters merge RUN merged"
        raise CheckpointMismatch(
            "an adapter is no whole network", where=str(checkpoint.path), cure=cure
        )
    denoiser = Pipeline.from_checkpoint(checkpoint, weights).denoiser
    write = exported_branch if exports_branch else exported
    difference = write(denoiser, layout, target)
    return f"exported: {target} ({layout}); read back, outputs differ by at most {difference:.1g}"


if __name__ == "__main__":
    sys.exit(main())
