"""Every YAML choice composes in every root that offers it, and binds to its targets' signatures."""

import collections.abc
import copy
import functools
import inspect
import types
import typing
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from tests.house.source import ROOT
from tinyflux_pl.config import allowlist, schema
from tinyflux_pl.config.build import check_binds
from tinyflux_pl.config.dotted_keys import dotted, missing_keys
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.experts.lune import Lune
from tinyflux_pl.experts.sol import Sol
from tinyflux_pl.sampling.loop import SamplerSettings

CONF = ROOT / "conf"
ROOTS = ("train", "extract", "generate")
FOREIGN = ("wandb_sweep",)  # read by W&B, not by Hydra
# these override other groups, so each is composed alone
RECIPES = ("experiment", "debug", "model", "hparams_search")


def options() -> dict[str, list[str]]:
    """Group -> its choices, from the folders of conf/."""
    choices: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        if file.parent != CONF:
            choices.setdefault(file.parent.relative_to(CONF).as_posix(), []).append(file.stem)
    return choices


def offered(root: str) -> set[str]:
    """The groups of a root's defaults list."""
    entries = OmegaConf.load(CONF / f"{root}.yaml").defaults
    keys = (next(iter(e)) if OmegaConf.is_config(e) else str(e) for e in entries)
    names = {
        k.removeprefix("override ").removeprefix("optional ").lstrip("/").split("@")[0]
        for k in keys
    }
    return names | {group for group in options() if group.startswith("hydra/")}


def lines(root: str) -> list[list[str]]:
    """Command lines that between them make every choice of a root at least once."""
    groups = {g: o for g, o in options().items() if g in offered(root)}
    if "callbacks" in groups:  # early stopping goes beside the default ones
        groups["callbacks"] = ["default", "[default,early_stopping]"]
    side_by_side = zip_longest(
        *([f"{g}={o}" for o in os] for g, os in groups.items() if g not in RECIPES)
    )
    alone = [[f"{g}={o}"] for g in RECIPES for o in groups.get(g, [])]
    return [[], *([choice for choice in row if choice] for row in side_by_side), *alone]


def composed(root: str, line: list[str]) -> dict:
    return copy.deepcopy(_composed(root, tuple(line)))


@functools.cache
def _composed(root: str, line: tuple[str, ...]) -> dict:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(root, [*line], return_hydra_config=True)
    with_output = OmegaConf.merge(
        config, {"hydra": {"runtime": {"output_dir": "out"}, "job": {"num": 0, "id": "0"}}}
    )
    HydraConfig.instance().set_config(with_output)
    try:
        job = OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])
        # what only a user can say: a folder, a checkpoint
        for key in missing_keys(OmegaConf.to_container(job)):
            OmegaConf.update(job, key, "given")
        return OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    finally:
        HydraConfig.instance().cfg = None


@pytest.mark.parametrize("root", ROOTS)
def test_every_choice_composes_and_binds(root):
    for line in lines(root):
        try:
            check_binds(composed(root, line))
        except Exception as error:
            error.add_note(f"python {root}.py {' '.join(line)}")
            raise


@pytest.mark.parametrize("root", ["train", "extract"])
def test_every_choice_of_conf_is_accepted(root):
    for line in lines(root):
        composition = composed(root, line)
        if "as_trained" in " ".join(line):
            continue
        if not composition.get("release") and left_to_a_release(composition, root):
            with pytest.raises(ConfigError):
                schema.read(composition, root)
            composition["release"] = composed(root, ["model=sdxl"])["release"]
        schema.read(composition, root)


def left_to_a_release(config, root):
    """True if path or sampler are left to the release's scheduler; extraction samples nothing."""
    return config["path"] == {} or (root == "train" and None in config["sampler"].values())


PLAIN = (int, float, str, bool, types.NoneType, Path)
# Options of a denoiser's builder that the experts of a run determine.
BY_CODE = {name for expert in (Lune(), Sol()) for name in expert.port_options()} | {"ports"}


def is_plain(annotation) -> bool:
    """True if a person could write such a value on the command line."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, tuple, list, collections.abc.Sequence):
        return all(is_plain(one) for one in inner if one is not Ellipsis)
    return origin is typing.Literal or annotation in PLAIN


def plain_parameters(target) -> set[str]:
    """The names of a target that take plain values."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    parameters = {
        name for name in inspect.signature(target).parameters if is_plain(hints.get(name))
    }
    for hint in hints.values():
        if typing.get_origin(hint) is typing.Unpack:
            parameters |= typing.get_type_hints(typing.get_args(hint)[0]).keys()
    return parameters - BY_CODE


def hidden(config: dict) -> set[str]:
    """Plain parameters of the house that the composed configuration does not list."""
    missing = set()
    for position, node in [("", config), *dotted(config)]:
        if isinstance(node, dict) and str(node.get("_target_")).startswith(allowlist.PROJECT):
            # a rate that does not fall
            idle = {"floor", "floor_kind"} if node.get("decay") == "constant" else set()
            names = plain_parameters(allowlist.resolve(node["_target_"])) - node.keys() - idle
            missing |= {f"{position}.{name}" for name in names}
    for position, kind in (("sampler", SamplerSettings), ("guidance", Guidance)):
        missing |= {
            f"{position}.{name}"
            for name in plain_parameters(kind) - config.get(position, {}).keys()
            if position in config
        }
    return missing


@pytest.mark.parametrize("root", ROOTS)
def test_every_plain_parameter_is_listed(root):
    """So that --cfg shows it, and a person may set it without a +."""
    missing = {
        f"{root}.py {' '.join(line)}": unlisted
        for line in lines(root)
        if (unlisted := hidden(composed(root, line)))
    }
    assert not missing, "\n".join(
        f"{line}: {', '.join(sorted(names))}" for line, names in missing.items()
    )


def test_every_file_of_conf_is_reached():
    choices = {choice.partition("=") for root in ROOTS for line in lines(root) for choice in line}
    reached = {f"{g}={o}" for g, _, os in choices for o in os.strip("[]").split(",")}
    missed = [f"{g}={o}" for g, os in options().items() for o in os if f"{g}={o}" not in reached]
    assert not missed, f"no root offers {missed}"
    assert {f.stem for f in CONF.glob("*.yaml")} == {*ROOTS, *FOREIGN}


def test_a_typo_in_a_yaml_is_detected():
    config = composed("train", [])
    config["path"]["sihft"] = 1
    with pytest.raises(Exception, match="sihft"):
        check_binds(config)
