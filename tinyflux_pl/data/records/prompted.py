"""Pictures of a folder that share one caption: a subject, or the subject's class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.images.decode import MAX_PIXELS
from tinyflux_pl.data.records.finding import Finding
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.folder_listing import listed
from tinyflux_pl.data.records.record_source import RecordSource


class Prompted(RecordSource):
    """Records of all images under `root`, each with the caption `prompt`.

    A few pictures are no set to hold some of them out of: every split has all. ConfigError without
    a prompt, CaptionError for pictures with captions of their own; else raises as Folder does.
    """

    name = "prompted"
    reads_files = True

    def __init__(
        self,
        root: str | Path | None,
        prompt: str | None,
        size: int | tuple[int, int] = 64,
        fit_mode: str = "crop",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not prompt or not prompt.strip():
            cure = 'data.prompt="a photo of sks dog", data.class_prompt="a photo of a dog"'
            raise ConfigError("no prompt for the pictures", where=f"data: {root}", cure=cure)
        self.prompt = prompt.strip()
        self._folder = Folder(
            root,
            size,
            fit_mode=fit_mode,
            split="all",
            allow_missing_captions=True,
            max_pixels=max_pixels,
        )
        captioned = [path for path, caption in self._folder.captions() if caption]
        if captioned:
            cure = "remove the captions, or train on them: data=folder"
            what = f"{listed(captioned)} with captions beside the one prompt"
            raise CaptionError(what, where=str(root), cure=cure)
        self.image_shape, self.fit_mode = self._folder.image_shape, fit_mode
        self.kinds = self._folder.kinds

    @property
    def findings(self) -> Sequence[Finding]:
        """Files not used."""
        return self._folder.findings

    @findings.setter
    def findings(self, findings: Sequence[Finding]) -> None:
        self._folder.findings = list(findings)

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> Record:
        record = self._folder[index]
        identity = fingerprints.sample_id(record.image.tobytes(), self.prompt)
        return replace(record, caption=self.prompt, sample_id=identity)

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the folder, with the prompt."""
        return {**self._folder.fingerprint(), "name": self.name, "prompt": self.prompt}

    def sample_keys(self) -> list[list[Any]]:
        """The sample keys of the folder, with the prompt."""
        return [[*key, self.prompt] for key in self._folder.sample_keys()]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each image, and the prompt."""
        return [(path, self.prompt) for path, _ in self._folder.captions()]

    def paths(self) -> list[str]:
        """The path of each image."""
        return self._folder.paths()

    def check(self) -> None:
        """Decode every image once."""
        self._folder.check()


class ClassPictures(Prompted):
    """Pictures of a subject's class, in a folder or drawn by the base.

    Without `root` train.py draws `count` of them from `seed` before its first step
    (app.generated.class_pictures), and fills it in.
    """

    name = "class"

    def __init__(
        self,
        root: str | Path | None,
        prompt: str | None,
        size: int | tuple[int, int] = 64,
        fit_mode: str = "crop",
        max_pixels: int = MAX_PIXELS,
        count: int = 100,
        seed: int = 0,
    ) -> None:
        if root is None:
            cure = "train.py draws them; or name a folder: data.class_root=FOLDER"
            raise ConfigError("no pictures of the class", where="data.class_root", cure=cure)
        self.count, self.seed = count, seed
        super().__init__(root, prompt, size, fit_mode, max_pixels)
