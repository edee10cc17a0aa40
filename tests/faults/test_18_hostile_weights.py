"""Fault 18: weights that run code or lie about their size are refused with a cure everywhere."""

import os
import re
import struct
import sys
from pathlib import Path

import torch

from tests.app.runs import run
from tests.denoisers.test_tinyflux import published
from tests.faults import forks
from tests.faults.saving import Saver
from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint, HubError, UntrustedFile
from tinyflux_pl.inference.open_checkpoint import open_checkpoint
from tinyflux_pl.text.pretrained import weight_files

FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")


class Payload:
    """Unpickling one writes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return exec, (f"open({self.marker!r}, 'w').write('run')",)


def hostile(folder: Path, marker: Path) -> dict[str, Path]:
    """The files, by what is wrong with them; none of them was made by opening another."""
    payload = {"state_dict": {"w": torch.zeros(2)}, "x": Payload(marker)}
    cases = {
        f"a pickle as {ending}": folder / f"weights{ending}" for ending in (".ckpt", ".pt", ".bin")
    }
    for path in cases.values():
        torch.save(payload, path, _use_new_zipfile_serialization=path.suffix != ".bin")
    for name, content in {
        "a pickle renamed": cases["a pickle as .bin"].read_bytes(),
        "an archive renamed": cases["a pickle as .pt"].read_bytes(),
        "a header of 4 EiB": struct.pack("<Q", 2**62) + b'{"w":{}}',
        "a header of 200 MB": struct.pack("<Q", 200 * 10**6) + b'{"w":{}}',
    }.items():
        cases[name] = folder / f"{name.replace(' ', '_')}.safetensors"
        cases[name].write_bytes(content)
    os.truncate(cases["a header of 200 MB"], 300 * 10**6)  # which the file could hold
    lightning = {
        "hyper_parameters": {
            "_instantiator": "builtins.exec",
            "source": f"open({str(marker)!r}, 'w')",
        }
    }
    cases["_instantiator"] = folder / "lightning.ckpt"
    torch.save(
        {**lightning, "state_dict": {}, "pytorch-lightning_version": "2.6.6"},
        cases["_instantiator"],
    )
    return cases


def as_state(folder: Path, content: bytes) -> Path:
    """A checkpoint with another state.pt, sealed again by the attacker."""
    Saver(folder, background=False, side=16).save(1)
    altered = folder / "step_0000001"
    (altered / manifest.STATE).write_bytes(content)
    (altered / manifest.MANIFEST).unlink()
    manifest.write(altered, 1)
    return altered


def release(folder: Path, weights: Path) -> Path:
    """A folder in the layout of transformers around such weights."""
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(weights)
    return folder


def attempts(tmp_path: Path, marker: Path):
    """(what, how it is passed) of each way in."""
    for i, (name, path) in enumerate(hostile(tmp_path, marker).items()):
        yield f"{name}: checkpoint", lambda path=path: open_checkpoint(path)
        yield f"{name}: resume", lambda path=path: directory.read(path)
        yield f"{name}: model.weights", lambda path=path: published(weights=str(path))
        if path.suffix == ".safetensors":
            yield f"{name}: any reader", lambda path=path: files.read_tensors(path)
            folder = release(tmp_path / f"encoder_{i}", path)
            yield f"{name}: text.weights", lambda folder=folder: weight_files(folder)
        else:
            forged = as_state(tmp_path / f"forged_{i}", path.read_bytes())
            yield f"{name}: state.pt", lambda forged=forged: directory.read(forged).state()
            yield (
                f"{name}: generate",
                lambda path=path: run("generate", tmp_path, f"checkpoint='{path}'", "prompt=x"),
            )


def test_hostile_weights_are_refused(tmp_path, figure):
    marker = tmp_path / "marker"

    def work():
        seen: list[str] = []
        sys.addaudithook(lambda event, _: seen.append(event) if event in FORBIDDEN else None)
        for name, attempt in attempts(tmp_path, marker):
            seen.clear()
            try:
                attempt()
                print(f"LET IN {name}")
            except (UntrustedFile, CorruptCheckpoint, HubError) as error:
                quiet = not seen and not marker.exists()
                print(
                    f"{'refused' if quiet and error.cure else 'RUN'} {name}: "
                    f"{type(error).__name__} {seen}"
                )

    ended = forks.run(work, tmp_path / "log")
    assert ended.code == 0, ended.printed
    lines = re.findall(r"^(?:refused|RUN|LET IN) .*$", ended.printed, re.MULTILINE)
    wrong = [line for line in lines if not line.startswith("refused")]
    assert not wrong and not marker.exists(), "\n".join(wrong)
    kinds = {line.split(":")[0] for line in lines}
    figure(
        18,
        "hostile weights at every door",
        len(lines) - len(wrong),
        len(lines),
        f"{len(kinds)} files",
    )
    assert len(kinds) == 8 and len(lines) > 30


def test_the_pickle_payload_works_when_unpickled(tmp_path):
    """Were one of them opened as pickles are, the test above would see it."""
    marker = tmp_path / "marker"

    def work():
        seen: list[str] = []
        path = hostile(tmp_path, marker)["a pickle as .pt"]
        sys.addaudithook(lambda event, _: seen.append(event) if event in FORBIDDEN else None)
        torch.load(path, weights_only=False)
        print(seen)

    ended = forks.run(work, tmp_path / "log")
    assert marker.exists() and "pickle.find_class" in ended.printed, ended.printed
