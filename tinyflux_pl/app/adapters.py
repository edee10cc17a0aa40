"""Adapter commands: merge into the base, take out again, export for other programs.

python -m tinyflux_pl.app.adapters merge outputs/LORA_RUN merged
python -m tinyflux_pl.app.adapters unmerge merged base
python -m tinyflux_pl.app.adapters export outputs/LORA_RUN folder --layout kohya
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, TinyFluxError

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint

OF_AN_ADAPTER = ("method", "base")  # keys of a description that a whole network does not have


@warnings_above_bars()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the error's three lines and exit code where it is refused."""
    parser = argparse.ArgumentParser(prog="python -m tinyflux_pl.app.adapters", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True)
    for name, action in (("merge", merge), ("unmerge", unmerge), ("export", export)):
        command = commands.add_parser(name, help=action.__doc__)
        command.add_argument("source", type=Path, help="a run's folder, or a checkpoint's")
        command.add_argument("target", type=Path, help="a new folder")
        if name == "export":
            command.add_argument("--layout", default="peft", help="peft, diffusers or kohya")
        else:
            command.add_argument("--base", help="where the base lies now, if it has moved")
        command.set_defaults(action=action)
    chosen = vars(parser.parse_args(arguments))
    action = chosen.pop("action")
    try:
        if chosen["target"].exists():
            cure = "name a new folder"
            raise ConfigError("it exists", where=str(chosen["target"]), cure=cure)
        print(action(**chosen))
    except TinyFluxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def merge(source: Path, target: Path, base: str | None = None) -> str:
    """Write a checkpoint of the whole network with the adapter added to its weights."""
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.methods.adapted_network import merged_state
    from tinyflux_pl.methods.registry import is_distilled

    checkpoint, denoiser = _loaded(source, base)
    config = {k: v for k, v in checkpoint.config.items() if k not in OF_AN_ADAPTER}
    if is_distilled(checkpoint.config):
        config["teacher"] = checkpoint.config["base"]
    config["merged"] = {"base": checkpoint.config["base"], "adapter": checkpoint.hash}
    directory.save(
        target,
        step=checkpoint.step,
        config=config,
        weights=merged_state(denoiser),
        averaged=None,
        state=None,
    )
    return f"merged: {target}; draw: python generate.py checkpoint={target} prompt=..."


def unmerge(source: Path, target: Path, base: str | None = None) -> str:
    """Write the base of a merged checkpoint, bit-identical: copied from where it is stored."""
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.inference.described_parts import explained
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.methods import base_weights
    from tinyflux_pl.methods.registry import is_distilled

    checkpoint = open_checkpoint(source)
    merged = checkpoint.config.get("merged")
    if not isinstance(merged, dict):
        cure = "name a folder that merge has written"
        raise CheckpointMismatch("nothing is merged in it", where=str(source), cure=cure)
    if is_distilled(checkpoint.config):
        raise CheckpointMismatch(
            "its base is drawn with another sampler, which it does not hold",
            where=str(source),
            cure=f"draw with the base itself: {base_weights.described(merged['base'])}",
        )
    config = {key: value for key, value in checkpoint.config.items() if key != "merged"}
    with explained(str(source)):
        denoiser = _base(config, merged["base"], str(source), base)
    directory.save(
        target,
        step=int(merged["base"].get("step", 0)),
        config=config,
        weights=denoiser.state_dict(),
        averaged=None,
        state=None,
    )
    return f"unmerged: {target} holds {base_weights.described(merged['base'])}"


def export(source: Path, target: Path, layout: str = "peft") -> str:
    """Write a run's adapter in the layout of peft, diffusers or kohya; the base is not read."""
    from tinyflux_pl.checkpoints import reference_count
    from tinyflux_pl.inference import adapters, described_parts
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.methods import adapter_export
    from tinyflux_pl.methods.registry import is_distilled

    checkpoint = open_checkpoint(source)
    skeleton, _ = described_parts.network(checkpoint, outline=True)
    adapter = adapters.of_checkpoint(checkpoint)
    header = reference_count.metadata_of(reference_count.recorded(checkpoint.config))
    file = adapter_export.write(adapter, skeleton, layout, target, header)
    lines = [f"exported: {file}"]
    if is_distilled(checkpoint.config):  # which no layout says
        steps = checkpoint.config["sampler"]["steps"]
        lines.append(f"draw with it in {steps} steps of Euler without guidance (guidance.scale=1)")
    return "\n".join(lines)


def _loaded(source: Path, base: str | None) -> tuple[Checkpoint, Any]:
    """The checkpoint of an adapter, and its denoiser with base weights and EMA."""
    from tinyflux_pl.inference.adapters import require_adapter
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.inference.pipeline import Pipeline

    checkpoint = open_checkpoint(source)
    require_adapter(checkpoint)
    return checkpoint, Pipeline.from_checkpoint(checkpoint, base=base).denoiser


def _base(config: dict[str, Any], reference: Any, where: str, base: str | None) -> Any:
    from tinyflux_pl.diffusion.paths import build_path
    from tinyflux_pl.methods.base_weights import base_denoiser

    clock = build_path(config["path"]["name"], config["path"]["config"])
    network = config["denoiser"]
    return base_denoiser(network["name"], network["config"], clock, reference, where, base)


if __name__ == "__main__":
    sys.exit(main())
