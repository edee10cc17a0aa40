"""Fault 32: forged checkpoints and caches with valid seals are refused in three lines."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.app.runs import SMALLEST, configuration, run
from tests.faults.conftest import FULL
from tinyflux_pl.app import run as recipes
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory, manifest, training_state
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, TinyFluxError, UntrustedFile


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    run("train", root, *SMALLEST, "run=first", "steps=1")
    return root


def set_at(dotted: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Change one place of a configuration."""

    def change(config: dict[str, Any]) -> None:
        *path, last = dotted.split(".")
        for key in path:
            config = config[key]
        config[last] = value

    return change


SHAPES = {  # place in config.json -> what stands there
    **{
        f"{part} {kind}": set_at(part, value)
        for part in ("path", "denoiser", "codec", "text", "sampler")
        for kind, value in (
            ("null", None),
            ("a list", []),
            ("a number", 3),
            ("a text", "x"),
            ("empty", {}),
        )
    },
    "no such denoiser": set_at("denoiser.name", "os.system"),
    "a name that is a list": set_at("denoiser.name", ["tinyflux"]),
    "a codec's name that is a node": set_at("codec.name", {"a": 1}),
    "a width of text": set_at("denoiser.config.config.hidden_size", "many"),
    "a negative width": set_at("denoiser.config.config.hidden_size", -16),
    "a million layers": set_at("denoiser.config.config.num_double_layers", 10**6),
    "a layer too many": set_at("denoiser.config.config.num_single_layers", 3),
    "a width of 10^30": set_at("denoiser.config.config.hidden_size", 10**30),
    "a width of 2^30": set_at("denoiser.config.config.hidden_size", 2**30),
    "sampler steps of 10^30": set_at("sampler.steps", 10**30),
    "sampler steps of a million": set_at("sampler.steps", 10**6),
    "sampler steps of -5": set_at("sampler.steps", -5),
    "a size of one side": set_at("image_size", [32]),
    "a size of texts": set_at("image_size", ["a", "b"]),
    "a size of 10^9": set_at("image_size", [10**9, 10**9]),
    "no size": set_at("image_size", None),
    "guidance that is a list": set_at("sampler.guidance", [1]),
    "an option that is unknown": set_at("codec.config.surplus", 1),
    "a codec from the hub": lambda config: config.update(
        codec={
            "name": "autoencoder_kl",
            "config": {"weights": "stranger/vae", "revision": "0" * 40},
        }
    ),
    "a text encoder from the hub": lambda config: config.update(
        text={"name": "clip_t5", "config": {"t5": "stranger/t5", "t5_revision": "0" * 40}}
    ),
}
QUICK = (
    "denoiser null",
    "codec a list",
    "a million layers",
    "a width of 10^30",
    "sampler steps of 10^30",
)
QUICK += ("a size of 10^9", "a codec from the hub", "a width of text")


def resealed(
    trained: Path, folder: Path, change: Callable[[dict[str, Any]], None] = lambda config: None
) -> Path:
    """A copy of the checkpoint, changed, with a seal that is right."""
    shutil.copytree(trained / "outputs" / "first" / "checkpoints" / "step_0000001", folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return seal(folder)


def seal(folder: Path, step: int = 1) -> Path:
    (folder / "manifest.json").unlink(missing_ok=True)
    manifest.write(folder, step)
    return folder


def refused(work: Callable[[], Any]) -> bool:
    """True if a TinyFluxError of three lines was raised; other errors are raised unchanged."""
    try:
        work()
    except TinyFluxError as error:
        return len(str(error).splitlines()) <= 3 and bool(error.cure)
    return False


def drawn(folder: Path, root: Path) -> None:
    recipes.generate(
        configuration("generate", root, f"checkpoint='{folder}'", "prompt=x", "sampler.steps=1")
    )


def test_a_resealed_description_of_another_shape_is_refused(trained, tmp_path, figure, monkeypatch):
    """Nothing that only such a description names is requested from anyone."""
    calls: list[str] = []
    monkeypatch.setattr("tinyflux_pl.weights.hub._fetch", lambda name, *_: calls.append(name))
    names = list(SHAPES) if FULL else QUICK
    failed = []
    for number, name in enumerate(names):
        folder = resealed(trained, tmp_path / str(number), SHAPES[name])
        try:
            refused_in_time = refused(lambda folder=folder: drawn(folder, tmp_path)) and not calls
        except Exception as error:
            refused_in_time, name = False, f"{name}: {error!r}"
        failed += [] if refused_in_time else [name]
    figure(
        32,
        "descriptions sealed again, drawn from",
        len(names) - len(failed),
        len(names),
        "; ".join(failed)[:2000],
    )


@pytest.mark.parametrize("step", [-5, 10**30, 2**63])
def test_a_resealed_step_beyond_the_run_is_refused(trained, tmp_path, step):
    folder = resealed(trained, tmp_path / "copy")
    seal(folder, step)
    assert refused(lambda: drawn(folder, tmp_path))
    again = ("run=again", f"resume='{folder}'", f"steps={max(step, 1)}", *SMALLEST)
    assert refused(lambda: recipes.train(configuration("train", tmp_path, *again)))


@pytest.mark.parametrize("door", ["drawn", "resumed"])
def test_resealed_nonfinite_weights_are_refused(trained, tmp_path, door):
    folder = resealed(trained, tmp_path / "outputs" / "copy" / "checkpoints" / "step_0000001")
    for name in (manifest.WEIGHTS, manifest.AVERAGED):
        tensors = {key: tensor.clone() for key, tensor in files.read_tensors(folder / name).items()}
        next(iter(tensors.values())).view(-1)[0] = float("nan")
        files.write_tensors(folder / name, tensors)
    seal(folder)
    again = ("run=again", f"resume='{folder}'", "resume_changed=true", "steps=2", *SMALLEST)
    works = {
        "drawn": lambda: drawn(folder, tmp_path),
        "resumed": lambda: recipes.train(configuration("train", tmp_path, *again)),
    }
    assert refused(works[door])


def test_another_network_is_reported_before_weights_are_read(trained, tmp_path, monkeypatch):
    folder = trained / "outputs" / "first" / "checkpoints" / "step_0000001"
    monkeypatch.setattr(directory.Checkpoint, "weights", lambda *_: pytest.fail("read"))
    wider = [line for line in SMALLEST if "num_single_layers" not in line] + [
        "model.num_single_layers=2"
    ]
    again = ("run=again", f"resume='{folder}'", "resume_changed=true", "steps=2", *wider)
    with pytest.raises(TinyFluxError, match="the weights are not this network's"):
        recipes.train(configuration("train", tmp_path, *again))


def test_a_training_state_that_expands_is_refused(trained, tmp_path, figure):
    """Packed zeros, a tensor of one number seen many times over, a name that is given twice."""
    state = {"step": 1, "optimizer": {"state": {}}, "callbacks": {}}
    torch.save(state, tmp_path / "state.pt")
    assert training_state.read(tmp_path / "state.pt")["step"] == 1
    torch.save({**state, "x": torch.zeros(2**22)}, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "large.pt") as packed:
        entries = [(entry.filename, packed.read(entry)) for entry in packed.infolist()]
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    torch.save({**state, "x": torch.zeros(1).expand(2**30)}, tmp_path / "expanded.pt")
    torch.save({**state, "optimizer": [1]}, tmp_path / "list.pt")
    torch.save({**state, "step": -1}, tmp_path / "step.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "large.pt").read_bytes()[:-100])
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    names = ("packed", "expanded", "list", "step", "torn", "old", "none")
    passed = sum(
        refused(lambda name=name: training_state.read(tmp_path / f"{name}.pt")) for name in names
    )
    figure(32, "training states that are none, or unfold", passed, len(names))
    with pytest.raises(UntrustedFile, match="it was not opened"):
        training_state.read(tmp_path / "packed.pt")


def test_a_manifest_with_an_impossible_number_of_samples_is_refused(trained, tmp_path, figure):
    (file, *_) = sorted(trained.glob("cache/**/train/manifest.json"))
    passed = 0
    claims = (
        {"total": 10**12},
        {"total": 10**9, "shard_size": 1},
        {"total": 10**30},
        {"total": -1},
        {"shard_size": 0},
    )
    for number, claim in enumerate(claims):
        folder = Path(shutil.copytree(file.parent, tmp_path / str(number)))
        content = files.read_sealed(folder / "manifest.json")
        files.write_sealed(folder / "manifest.json", {**content, **claim})
        try:
            CacheStore.open(folder)
        except CorruptStore as error:
            passed += len(str(error).splitlines()) <= 3
    figure(32, "manifests of caches sealed again", passed, len(claims))
