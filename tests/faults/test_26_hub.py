"""Fault 26: hub files are pinned, complete, unchanged since the first load, and no pickles."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import releases
from tests.faults import forks
from tests.faults.hostile_targets import Touch
from tinyflux_pl.core.errors import TinyFluxError, UntrustedFile
from tinyflux_pl.text.clip_t5 import ClipT5
from tinyflux_pl.text.pretrained import load_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "owner/encoder"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Tiny real encoders, T5's and CLIP's."""
    root = tmp_path_factory.mktemp("releases")
    return releases.flan_t5(root / "t5"), releases.clip(root / "clip")


@pytest.fixture
def cached(release, tmp_path):
    """The hub's cache as its client leaves it, with T5 of one commit."""
    snapshot = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    shutil.copytree(release[0], snapshot)
    return snapshot


def encode(clip: Path, revision: str | None = COMMIT) -> None:
    """Use an encoder of the hub as a run does: locate, hash, read and encode."""
    encoder = ClipT5(REPOSITORY, str(clip), t5_revision=revision, length=12)
    encoder.fingerprint()
    assert encoder.encode(["a red circle"]).tokens.shape == (1, 12, releases.T5_WIDTH)


def offline(work: Callable[[], None], folder: Path) -> dict:
    """`work` in a child with a cached hub below `folder` and no network; result and open files."""

    def child() -> None:
        import pickle

        import huggingface_hub.constants as hub
        import transformers  # noqa: F401

        opened: list[str] = []

        def hook(event: str, arguments: tuple) -> None:
            pickled = event == "open" and str(arguments[0]).endswith(PICKLES)
            if (
                event in ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.system")
                or pickled
            ):
                opened.append(f"{event} {arguments[0]}")

        hub.HF_HUB_OFFLINE, hub.HF_HUB_CACHE = True, str(folder / "hub")
        sys.addaudithook(hook)
        pickle.loads(pickle.dumps(Path))  # what the hook hears of a pickle
        heard, outcome = opened.copy(), {"error": "", "what": ""}
        opened.clear()
        try:
            work()
        except TinyFluxError as error:
            outcome = {"error": type(error).__name__, "what": str(error)}
        (folder / "told.json").write_text(json.dumps({**outcome, "opened": opened, "heard": heard}))

    ended = forks.run(child, folder / "log")
    assert ended.code == 0, ended.printed
    outcome = json.loads((folder / "told.json").read_text())
    assert outcome["heard"], "the hook would have noticed"
    return outcome


def test_a_cached_release_works_without_network(cached, release, tmp_path):
    for _ in range(2):  # recorded, and compared
        assert offline(lambda: encode(release[1]), tmp_path)["error"] == ""
    assert list(cached.parent.parent.glob(".tinyflux_sha256_*.json"))


def only_pickles(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()
    torch.save({"a": Touch(snapshot / "marker")}, snapshot / "pytorch_model.bin")


def changed(snapshot: Path) -> None:
    file = snapshot / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # a weight, and no error in the file's own eyes
    file.write_bytes(content)


def test_four_hub_failures_are_reported_with_a_cure(cached, release, tmp_path, figure):
    failures = {"wrong hash": {}, "unpinned": {}, "offline": {}, "only pickles": {}}
    assert offline(lambda: encode(release[1]), tmp_path)["error"] == ""
    failures["unpinned"] = offline(lambda: encode(release[1], "main"), tmp_path)
    changed(cached)
    failures["wrong hash"] = offline(lambda: encode(release[1]), tmp_path)
    next(cached.parent.parent.glob(".tinyflux_sha256_*.json")).unlink()
    only_pickles(cached)
    failures["only pickles"] = offline(lambda: encode(release[1]), tmp_path)
    shutil.rmtree(tmp_path / "hub")
    failures["offline"] = offline(lambda: encode(release[1]), tmp_path)
    clear = {
        "wrong hash": ("HubError", "is not the file that was fetched"),
        "unpinned": ("HubError", "not pinned"),
        "offline": ("HubError", "could not fetch"),
        "only pickles": ("HubError", "only safetensors weights are read"),
    }
    passed = [
        k
        for k, (kind, why) in clear.items()
        if failures[k]["error"] == kind and why in failures[k]["what"]
    ]
    cured = [k for k in passed if "do:" in failures[k]["what"] and not failures[k]["opened"]]
    assert not (cached / "marker").exists()
    figure(
        26,
        "4 faults of the hub, 0 pickles opened",
        len(cured),
        4,
        "; ".join(set(clear) - set(cured)),
    )


def index_of_pickles(snapshot: Path) -> None:
    only_pickles(snapshot)
    index = {"weight_map": {"shared.weight": "pytorch_model.bin"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))


def index_that_leads_away(snapshot: Path) -> None:
    os.rename(snapshot / "model.safetensors", snapshot.parent / "model.safetensors")
    index = {"weight_map": {"shared.weight": "../model.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))


def with_config(**keys: object) -> Callable[[Path], None]:
    def write(snapshot: Path) -> None:
        file = snapshot / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))

    return write


def code_in_the_tokenizer(snapshot: Path) -> None:
    file = snapshot / "tokenizer_config.json"
    code = {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]},
    }
    file.write_text(json.dumps({**json.loads(file.read_text()), **code}))
    (snapshot / "evil.py").write_text(
        f"open({str(snapshot / 'marker')!r}, 'w')\nclass EvilTokenizer: pass\n"
    )


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an index that names a pickle": (index_of_pickles, "names 'pytorch_model.bin' as weights"),
    "an index that leads away": (index_that_leads_away, "as weights"),
    "an index of something else": (
        lambda s: (s / "model.safetensors.index.json").write_text("[1]"),
        "JSON object",
    ),
    "other weights by config": (
        with_config(transformers_weights="other.safetensors"),
        "leads to other files",
    ),
    "code by config": (
        with_config(attn_implementation="evil/kernel"),
        "leads to other files or code",
    ),
    "an adapter": (
        lambda s: (s / "adapter_config.json").write_text("{}"),
        "an adapter is stored next to",
    ),
    "a tokenizer that is none": (
        lambda s: (s / "tokenizer.json").write_text("{"),
        "not a vocabulary",
    ),
    "a config that is none": (lambda s: (s / "config.json").write_text("[]"), "not a JSON object"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_release_that_leads_to_pickles_or_code_is_refused(cached, release, tmp_path, kind):
    make, why = HOSTILE[kind]
    make(cached)
    outcome = offline(lambda: encode(release[1]), tmp_path)
    assert outcome["error"] in ("UntrustedFile", "CorruptCheckpoint") and why in outcome["what"], (
        outcome
    )
    assert not outcome["opened"] and not (cached / "marker").exists()


def test_code_next_to_a_tokenizer_is_not_run(cached, release, tmp_path):
    """transformers has a class for T5's; an unspecific tokenizer would need the code."""
    code_in_the_tokenizer(cached)
    assert offline(lambda: encode(release[1]), tmp_path)["error"] == ""
    (cached / "config.json").unlink()
    with pytest.raises(UntrustedFile, match="requires its own code"):
        load_tokenizer(cached)
    assert not (cached / "marker").exists()
