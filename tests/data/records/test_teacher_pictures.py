"""Pictures that a teacher drew are records with captions and the grammar of their task."""

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.records.folder import Folder
from tinyflux_pl.data.records.teacher_pictures import TeacherPictures
from tinyflux_pl.data.tasks.shapes.records import Shapes


@pytest.fixture
def drawn(tmp_path):
    for index in range(3):
        pixels = np.full((32, 32, 3), 40 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"teacher_{index:05d}.png")
        (tmp_path / f"teacher_{index:05d}.txt").write_text(f"a red circle {index}")
    return tmp_path


def task():
    return Shapes("train", 4, 32)


def test_each_picture_is_a_record_with_its_caption(drawn):
    records = TeacherPictures(drawn, task())
    assert len(records) == 3 and records[2].caption == "a red circle 2"
    assert np.all(records[2].image == 80) and records.captions()[0][1] == "a red circle 0"
    assert records.sample_keys() == Folder(drawn, 32, split="all").sample_keys()


def test_the_grammar_is_the_tasks_and_its_prompts_are_drawn_once(drawn):
    records = TeacherPictures(drawn, task())
    assert records.grammar == task().grammar and not records.prompt_splits


def test_a_missing_folder_and_a_task_without_prompts_are_refused(drawn):
    with pytest.raises(ConfigError, match="no pictures of the teacher"):
        TeacherPictures(None, task())
    with pytest.raises(ConfigError, match="has no prompts"):
        TeacherPictures(drawn, Folder(drawn, 32, split="all"))
