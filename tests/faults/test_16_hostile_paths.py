"""Fault 16: paths that leave a dataset are refused, and no file outside is opened."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.faults import forks
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.image_pairs import PairedImages

BAIT = "bait.png"  # beside the dataset's folder; out/ beside it holds another
NAMED = [  # as a row of metadata may say it
    "../bait.png",
    "sub/../../bait.png",
    "0.png/../../bait.png",
    "{outside}/bait.png",
    "//{outside}/bait.png",
    "\\\\server\\share\\bait.png",
    "..\\bait.png",
    "C:\\bait.png",
    "\0../bait.png",
    "../bait.png\0.png",
    "%2e%2e/bait.png",
    "．．/bait.png",
    "..\u2215bait.png",
    "file://{outside}/bait.png",
    "~/bait.png",
    "s3://bucket/bait.png",
    "../set_of_others/bait.png",
    "..",
    "../" * 2000 + "bait.png",
    "a" * 5000 + ".png",
    "\ud800.png",
]
LINKED: dict[str, Callable[[Path, Path], object]] = {  # as a dataset may hold it
    "image": lambda root, outside: (root / "evil.png").symlink_to(outside / BAIT),
    "folder": lambda root, outside: (root / "evil").symlink_to(outside / "out"),
    "caption beside": lambda root, outside: swap(root / "0.txt", outside / "bait.txt"),
    "table of captions": lambda root, outside: (root / "metadata.jsonl").symlink_to(
        outside / "bait.jsonl"
    ),
}
KEYS = ("file_name", "image", "file")


def swap(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def dataset(base: Path) -> Path:
    """A sound dataset in place/set, with bait all around it."""
    root = base / "set"
    for folder in (root / "sub", base / "out", base / "set_of_others"):
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 9), "blue").save(folder / BAIT)
    (root / "sub" / BAIT).unlink()
    Image.new("RGB", (9, 9), "blue").save(base / BAIT)
    (base / "bait.txt").write_text("a secret")
    (base / "bait.jsonl").write_text('{"file_name": "0.png", "text": "a secret"}')
    Image.new("RGB", (9, 9), "red").save(root / "0.png")
    (root / "0.txt").write_text("a red square")
    return root


def attempts(root: Path, name: str, outside: Path) -> list[Callable[[], object]]:
    """A hostile name in every key, every form of the table, and the option that names it."""
    name, rows = name.format(outside=outside), []
    for key in KEYS:
        rows += [
            ("metadata.jsonl", json.dumps({key: name, "text": "x"})),
            ("list.json", [{key: name, "text": "x"}]),
        ]
    rows += [("mapping.json", {name: "x"}), ("objects.json", {name: {"text": "x"}})]

    def table(file: str, content: object) -> Callable[[], object]:
        def read() -> object:
            path = root / ("metadata.jsonl" if file.endswith(".jsonl") else "metadata.json")
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            try:
                return Folder(root, size=8, split="all")[0]
            finally:
                path.unlink()

        return read

    def paired(row: dict) -> Callable[[], object]:
        def read() -> object:
            (root / "metadata.json").write_text(
                json.dumps([{"target": "0.png", "caption": "x", **row}])
            )
            try:
                return PairedImages(root, size=8, split="all")[0]
            finally:
                (root / "metadata.json").unlink()

        return read

    pairs = [
        {"target": name, "reference": "0.png"},
        {"reference": name},
        {"reference": ["0.png", name]},
    ]
    rows_of_pairs = [*pairs, *([{"mask": name}] if name else [])]
    assert paired({"reference": "0.png"})(), "a sound pair is read"
    return [
        *(paired(row) for row in rows_of_pairs),
        *(table(*row) for row in rows),
        lambda: Folder(root, size=8, split="all", caption_file=name),
    ]


def tried(work: Callable[[], object], root: Path, opened: list[str]) -> bool:
    """True if it was refused with a TinyFluxError and nothing outside was opened or listed."""
    opened.clear()
    try:
        work()
    except TinyFluxError as error:
        return bool(error.cure) and not [
            path for path in opened if not Path(path).is_relative_to(root)
        ]
    return False


def watched() -> list[str]:
    """Real paths of every later open and listing; for a child, since hooks cannot be removed."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(
            arguments[0], str | bytes | os.PathLike
        ):
            seen.append(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(hook)
    return seen


def test_hostile_paths_are_refused(tmp_path, figure):
    def work() -> None:
        outcomes = {}
        warm = dataset(tmp_path / "warm")
        # its imports are done now
        assert Folder(warm, size=8, split="all")[0].caption == "a red square"
        opened = watched()
        for number, name in enumerate(NAMED):
            root = dataset(tmp_path / f"named_{number}")
            doors = attempts(root, name, root.parent)
            assert len(Folder(root, size=8, split="all")) == 1, "the set itself is sound"
            outcomes[ascii(name)[:60]] = all([tried(door, root, opened) for door in doors])
        for kind, make in LINKED.items():
            root = dataset(tmp_path / kind)
            make(root, root.parent)
            outcomes[f"link: {kind}"] = tried(
                lambda root=root: Folder(root, size=8, split="all")[0], root, opened
            )
            if kind != "caption beside":  # pairs have theirs under another name
                outcomes[f"link: {kind}"] &= tried(
                    lambda root=root: PairedImages(root, size=8, split="all"), root, opened
                )
        root = dataset(tmp_path / "pair")
        for name in ("a_target.png", "a_ref.png"):
            (root / name).write_bytes((root / "0.png").read_bytes())
        swap(root / "a_caption.txt", tmp_path / "pair" / "bait.txt")
        outcomes["link: caption beside"] &= tried(
            lambda: PairedImages(root, size=8, split="all"), root, opened
        )
        (tmp_path / "held.json").write_text(json.dumps(outcomes))

    ended = forks.run(work, tmp_path / "log")
    assert ended.code == 0, ended.printed
    outcomes = json.loads((tmp_path / "held.json").read_text())
    assert len(outcomes) == 25
    failed = [name for name, good in outcomes.items() if not good]
    figure(16, "25 hostile paths, 0 opened outside", 25 - len(failed), 25, ", ".join(failed))


@pytest.mark.parametrize("kind", LINKED)
def test_a_link_that_stays_inside_is_read(tmp_path, kind):
    root = dataset(tmp_path)
    inside = root / "sub"
    for name in (BAIT, "bait.txt", "bait.jsonl"):
        (inside / name).write_bytes((tmp_path / name).read_bytes())
    (inside / "out").mkdir()
    LINKED[kind](root, inside)
    records = {
        r.source: r.caption for r in Folder(root, size=8, split="all", allow_missing_captions=True)
    }
    first = "" if kind == "table of captions" else "a red square"
    first = "a secret" if kind in ("caption beside", "table of captions") else first
    more = {"evil.png": ""} if kind == "image" else {}
    expected = "" if kind == "table of captions" else "a secret"
    assert records == {"0.png": first, "sub/bait.png": expected, **more}
