"""Pictures drawn by a teacher for captions of a task that the data does not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.record_source import RecordSource


class TeacherPictures(RecordSource):
    """Records of the pictures under `root` with their captions, all of them for training.

    Without `root` train.py draws `count` of them with the teacher `teacher` before its first step
    (app.generated.teacher_pictures), for captions of `task` from `seed`, with the scale `guidance`
    (None: that of the run), and fills it in. What the run draws is read back by the task's own
    source. ConfigError without a folder, or for a task without prompts.
    """

    name = "teacher_pictures"
    reads_files = True

    def __init__(
        self,
        root: str | Path | None,
        task: RecordSource,
        teacher: str = "lune",
        count: int = 1024,
        size: int = 32,
        seed: int = 0,
        guidance: float | None = None,
    ) -> None:
        if not task.prompt_splits:
            cure = "a task that writes captions by rule, such as shapes or scenes"
            raise ConfigError(f"{task.name} has no prompts", where="data: task", cure=cure)
        if root is None:
            cure = "train.py draws them; or name a folder: data.teacher_root=FOLDER"
            raise ConfigError("no pictures of the teacher", where="data.teacher_root", cure=cure)
        self._folder = Folder(root, size, split="all")
        self.image_shape, self.kinds = self._folder.image_shape, self._folder.kinds
        self.grammar = task.grammar

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> Record:
        return self._folder[index]

    def fingerprint(self) -> dict[str, Any]:
        """The folder's fingerprint: who drew the pictures does not matter for a cache."""
        return {**self._folder.fingerprint(), "name": self.name}

    def sample_keys(self) -> list[list[Any]]:
        """The sample keys of the folder."""
        return self._folder.sample_keys()

    def captions(self) -> list[tuple[str, str]]:
        """The path of each image, and its caption."""
        return self._folder.captions()

    def paths(self) -> list[str]:
        """The path of each image."""
        return self._folder.paths()

    def check(self) -> None:
        """Decode every image once."""
        self._folder.check()
