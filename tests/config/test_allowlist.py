"""Twenty targets that would run code, each in every position; and what is allowed stays allowed."""

import sys

import pytest
import torch

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import ConfigError

DANGEROUS = [
    "os.system",
    "os.popen",
    "subprocess.Popen",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "shutil.rmtree",
    "pickle.loads",
    "importlib.import_module",
    "runpy.run_path",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.optim.adamw.torch.load",
    "hydra.utils.instantiate",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "numpy.load",
    "tinyflux_pl.core.disk_full.shutil.rmtree",
    "tinyflux_pl.core.files.write_bytes",
    "tinyflux_pl.app.run.train",
    "tinyflux_pl.checkpoints.directory.read",
    "tinyflux_pl.cache.verify.repair",
    "tinyflux_pl.cache.store.CacheStore",
    "tinyflux_pl.cache.sample_keys.write",
    "tinyflux_pl.cache.rebuild.CacheStore.remove_group",
    "tinyflux_pl.training.replay_bundle.ReplayBundle",
    "tinyflux_pl.experts.teacher_export.export_teacher",
    "tinyflux_pl.data.tasks.shapes.records.Shapes.prompts",
    "tinyflux_pl.inference.pipeline.Pipeline.from_checkpoint",
    "tinyflux_pl.diffusion.paths.torch.load",
    "tinyflux_pl.diffusion.paths.torch.hub.load",
    "tinyflux_pl.diffusion.paths.LinearPath.__init__.__globals__",
    "tinyflux_pl.diffusion.paths.__builtins__",
]
MALFORMED = [
    *(
        "",
        "os",
        ".os.system",
        "os..system",
        "os.system ",
        "os/system",
        "tinyflux_pl.",
        "tinyflux_plx.evil.Run",
    ),
    *(
        "${evil}",
        3,
        None,
        ["os.system"],
        {"a": "os.system"},
        "ｏs.system",
        "tinyflux_pl.diffusion\nos.system",
    ),
]
POSITIONS = {
    "top": lambda n: n,
    "nested": lambda n: {
        "_target_": "tinyflux_pl.diffusion.paths.LinearPath",
        "a": {"b": {"c": n}},
    },
    "partial": lambda n: {**n, "_partial_": True},
    "list": lambda n: {"x": [1, [{"y": n}]]},
    "tuple": lambda n: ({"y": n},),
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("target", DANGEROUS + MALFORMED, ids=repr)
def test_a_target_outside_the_allowlist_is_refused_before_building(target, position, tmp_path):
    marker = tmp_path / "marker"
    node = POSITIONS[position]({"_target_": target, "command": f"touch {marker}"})
    with pytest.raises(ConfigError):
        allowlist.check(node)
    with pytest.raises(ConfigError):
        build(node)
    assert not marker.exists()


def test_a_forbidden_name_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_on_import.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError):
        allowlist.check(
            {
                "a": {"_target_": "tinyflux_pl.diffusion.paths.LinearPath"},
                "b": {"_target_": "evil_on_import.X"},
            }
        )
    assert "evil_on_import" not in sys.modules


def test_an_alias_is_checked_by_its_destination(monkeypatch):
    from tinyflux_pl.diffusion import paths

    monkeypatch.setattr(paths, "Harmless", torch.load, raising=False)
    target = "tinyflux_pl.diffusion.paths.Harmless"
    allowlist.check_name(target)  # the string alone looks right
    with pytest.raises(ConfigError, match=r"leads to torch"):
        allowlist.check({"_target_": target})


@pytest.mark.parametrize(
    "closed", ["core.files:write_bytes", "cache.store:CacheStore", "app.run:train"]
)
def test_a_definition_of_a_closed_module_is_refused_wherever_imported(monkeypatch, closed):
    """Under a name of an open package, as an import there would give it."""
    import importlib

    from tinyflux_pl.diffusion import paths

    module, name = closed.split(":")
    monkeypatch.setattr(
        paths,
        "Harmless",
        getattr(importlib.import_module(f"tinyflux_pl.{module}"), name),
        raising=False,
    )
    target = "tinyflux_pl.diffusion.paths.Harmless"
    allowlist.check_name(target)  # the string alone looks right
    with pytest.raises(ConfigError, match=rf"leads to tinyflux_pl\.{module}"):
        allowlist.check({"_target_": target})


@pytest.mark.parametrize("target", sorted(n for n in allowlist.NAMED if n.startswith("torch.")))
def test_every_named_optimizer_resolves(target):
    assert issubclass(
        allowlist.resolve(target), torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler
    )


def test_every_named_lightning_class_resolves():
    for name in (n for n in allowlist.NAMED if n.startswith("lightning.")):
        assert isinstance(allowlist.resolve(name), type), name


def test_project_classes_are_allowed_and_typos_refused():
    from tinyflux_pl.diffusion.paths import LinearPath

    assert allowlist.resolve("tinyflux_pl.diffusion.paths.LinearPath") is LinearPath
    for slip in ("tinyflux_pl.diffusion.paths.LinearPth", "tinyflux_pl.difusion.paths.LinearPath"):
        with pytest.raises(ConfigError, match=r"there is no|not on the allowlist"):
            allowlist.check({"_target_": slip})


def test_a_module_attribute_of_another_module_is_refused(monkeypatch):
    """Lazy modules import any requested attribute, as torch does."""
    import types

    from tinyflux_pl.diffusion import paths

    calls, lazy = [], types.ModuleType("lazy")
    lazy.__getattr__ = calls.append
    monkeypatch.setattr(paths, "lazy", lazy, raising=False)
    with pytest.raises(ConfigError, match="alias of another module"):
        allowlist.resolve("tinyflux_pl.diffusion.paths.lazy.evil.Class")
    assert calls == []
