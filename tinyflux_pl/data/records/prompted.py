"""Pictures of a folder that share one caption or a few: a subject, or the subject's class."""

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

    Of several prompts each picture has one as a caption of its own. A few pictures are no set to
    hold some of them out of: every split has all. ConfigError without a prompt, CaptionError for
    captions beside one prompt and for one that is none of several; else raises as Folder does.
    """

    name = "prompted"
    reads_files = True

    def __init__(
        self,
        root: str | Path | None,
        prompt: str | Sequence[str] | None,
        size: int | tuple[int, int] = 64,
        fit_mode: str = "crop",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.texts = [
            text.strip() for text in ([prompt] if isinstance(prompt, str) else prompt or ())
        ]
        if not all(self.texts) or not self.texts:
            cure = 'data.prompt="a photo of sks dog", data.class_prompt="a photo of a dog"'
            raise ConfigError("no prompt for the pictures", where=f"data: {root}", cure=cure)
        self._folder = Folder(
            root,
            size,
            fit_mode=fit_mode,
            split="all",
            allow_missing_captions=len(self.texts) == 1,
            max_pixels=max_pixels,
        )
        self._require_captions()
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
        caption = self._prompt_of(record.caption)
        identity = fingerprints.sample_id(record.image.tobytes(), caption)
        return replace(record, caption=caption, sample_id=identity)

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the folder, with the prompt."""
        prompt = self.texts[0] if len(self.texts) == 1 else self.texts
        return {**self._folder.fingerprint(), "name": self.name, "prompt": prompt}

    def sample_keys(self) -> list[list[Any]]:
        """The sample keys of the folder, with the prompt."""
        keys = zip(self._folder.sample_keys(), self.captions(), strict=True)
        return [[*key, caption] for key, (_, caption) in keys]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each image, and the prompt."""
        return [(path, self._prompt_of(caption)) for path, caption in self._folder.captions()]

    def paths(self) -> list[str]:
        """The path of each image."""
        return self._folder.paths()

    def check(self) -> None:
        """Decode every image once."""
        self._folder.check()

    def _prompt_of(self, caption: str) -> str:
        return self.texts[0] if len(self.texts) == 1 else caption

    def _require_captions(self) -> None:
        """Raise CaptionError for captions beside one prompt, or that are none of several."""
        is_one = len(self.texts) == 1
        wrong = [
            path
            for path, caption in self._folder.captions()
            if (caption if is_one else caption not in self.texts)
        ]
        if wrong and is_one:
            cure = "remove the captions, or train on them: data=folder"
            what = f"{listed(wrong)} with captions beside the one prompt"
            raise CaptionError(what, where=str(self._folder.root), cure=cure)
        if wrong:
            cure = "caption each picture with one of the prompts, or let the base draw them"
            what = f"{listed(wrong)} with a caption that is none of the {len(self.texts)} prompts"
            raise CaptionError(what, where=str(self._folder.root), cure=cure)


class ClassPictures(Prompted):
    """Pictures of a subject's class, in a folder or drawn by the base.

    Without `root` train.py draws `count` of them from `seed` before its first step, of several
    prompts by turns (app.generated.class_pictures), and fills it in. Prompts of other subjects
    preserve those as well as the class.
    """

    name = "class"

    def __init__(
        self,
        root: str | Path | None,
        prompt: str | Sequence[str] | None,
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
