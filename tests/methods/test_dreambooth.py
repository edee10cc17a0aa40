"""Runs of method=dreambooth: pictures of the class are drawn once and kept, both terms train."""

import csv
from dataclasses import replace

import pytest
import torch

from tests.app.runs import SMALLEST, photographs, run
from tests.objectives.test_flow import NULL, Spy, make_batch
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.records.prompted import ClassPictures, Prompted
from tinyflux_pl.objectives.prior import PriorPreservation

SMALL = (
    *SMALLEST,
    "callbacks.preview.count=1",
    "sampler.steps=2",
    "optimizer=adamw",
    "optimizer.lr=0.01",
    "schedule=constant",
    "schedule.warmup_steps=0",
    "callbacks.checkpoint.keep=9",
)
CLASS = ('data.class_prompt="a photo of a thing"', "data.class_count=3", "data.image_size=32")
SUBJECT = ("data=dreambooth", 'data.prompt="a photo of sks thing"', *CLASS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of four steps, and three pictures of a subject."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALL, "run=base", "steps=4")
    for file in photographs(project / "subject", ("chelsea", "coffee", "rocket")).glob("*.txt"):
        file.unlink()
    return project


def booth(root, name, *words, method="dreambooth"):
    start = (f"init='{root}/outputs/base'", f"data.root='{root}/subject'", f"run={name}")
    method_words = (f"method={method}", *(("method.rank=2",) if method == "dreambooth" else ()))
    run("train", root, *SMALL, *method_words, *SUBJECT, *start, "steps=4", *words)


def step(root, name, number=4):
    return directory.read(root / "outputs" / name / "checkpoints" / f"step_{number:07d}")


def drawn(root):
    """Folder -> picture -> bytes, of all class pictures."""
    folders = sorted((root / "cache" / "class_pictures").iterdir())
    return {f.name: {p.name: p.read_bytes() for p in sorted(f.glob("*.png"))} for f in folders}


@pytest.fixture(scope="module")
def trained(root):
    booth(root, "first")
    return drawn(root)


def test_the_base_draws_the_class_once_and_an_equal_run_reads_it_again(root, trained):
    assert [len(pictures) for pictures in trained.values()] == [3]
    (folder,) = (root / "cache" / "class_pictures").iterdir()
    times = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.suffix == ".png"}
    booth(root, "second")
    assert times == {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.suffix == ".png"}
    one, other = step(root, "first").weights("raw"), step(root, "second").weights("raw")
    assert all(".lora_" in k for k in one) and all(torch.equal(one[k], other[k]) for k in one)


def test_a_missing_or_changed_class_picture_is_drawn_again_with_equal_bits(root, trained):
    (folder,) = (root / "cache" / "class_pictures").iterdir()
    (folder / "class_00001.png").unlink()
    (folder / "class_00002.png").write_bytes(b"torn")
    booth(root, "third", "steps=1")
    assert drawn(root) == trained


def test_a_resumed_run_ends_with_the_same_bits(root, trained):
    booth(root, "broken", "steps=2", "schedule.total_steps=4")
    booth(root, "broken", "resume=auto")
    one, other = step(root, "first").weights("raw"), step(root, "broken").weights("raw")
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_both_terms_are_logged_and_full_training_takes_them_too(root, trained):
    booth(root, "full", "logger=csv", method="dreambooth_full")
    after = step(root, "full").weights("raw")
    assert after.keys() == step(root, "base").weights("raw").keys()
    (metrics,) = (root / "outputs" / "full").rglob("metrics.csv")
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    values = [float(r[k]) for r in rows for k in r if k.endswith("prior") and r[k]]
    assert values and max(values) > 0
    assert drawn(root) == trained


def test_another_prompt_is_another_set_and_given_pictures_are_not_drawn(root, trained):
    booth(root, "other", 'data.class_prompt="a thing"', "data.class_count=2", "steps=1")
    assert len(drawn(root)) == 2
    booth(root, "given", f"data.class_root='{root}/subject'", "steps=1")
    assert len(drawn(root)) == 2
    for folder in (root / "cache" / "class_pictures").iterdir():
        if folder.name not in trained:
            assert files.read_object(folder / "class.json")["content"]["prompt"] == "a thing"


def test_several_class_prompts_are_drawn_by_turns_and_train_with_their_own_captions(root):
    three = 'data.class_prompt=["a red thing","a blue thing"]'
    booth(root, "several", three, "steps=1")
    (folder,) = (
        folder
        for folder in (root / "cache" / "class_pictures").iterdir()
        if isinstance(files.read_object(folder / "class.json")["content"]["prompt"], list)
    )
    captions = [p.read_text() for p in sorted(folder.glob("*.txt"))]
    assert captions == ["a red thing", "a blue thing", "a red thing"]
    records = ClassPictures(folder, ["a red thing", "a blue thing"], 32)
    assert [records[i].caption for i in range(3)] == captions
    assert [caption for _, caption in records.captions()] == captions
    keys = [key[-1] for key in records.sample_keys()]
    assert keys == captions
    assert records.fingerprint()["prompt"] == ["a red thing", "a blue thing"]
    assert records.prompts(1, "train") == []  # a class is not read back
    with pytest.raises(CaptionError, match="none of the 2 prompts"):
        ClassPictures(folder, ["a red thing", "a green thing"], 32)
    with pytest.raises(ConfigError, match="2 pictures of 3 prompts"):
        booth(root, "few", "data.class_prompt=[a,b,c]", "data.class_count=2", "steps=1")


@pytest.mark.parametrize("prompts", ["[]", '["a thing",""]', '" "', "[a thing,3]"])
def test_an_empty_class_prompt_is_refused_before_a_picture_is_drawn(root, trained, prompts):
    before = sorted((root / "cache" / "class_pictures").iterdir())
    with pytest.raises(ConfigError, match="prompt"):
        booth(root, "empty", f"data.class_prompt={prompts}", "steps=1")
    assert sorted((root / "cache" / "class_pictures").iterdir()) == before


def test_a_list_of_one_class_prompt_is_that_prompt(root, trained):
    before = sorted((root / "cache" / "class_pictures").iterdir())
    booth(root, "one", 'data.class_prompt=["a photo of a thing"]', "steps=1")
    assert sorted((root / "cache" / "class_pictures").iterdir()) == before


def test_class_pictures_without_trained_weights_are_refused_at_the_start(root):
    words = (*SMALL, "method=dreambooth_full", *SUBJECT, f"data.root='{root}/subject'", "run=none")
    with pytest.raises(ConfigError, match="no trained weights"):
        run("train", root, *words)
    with pytest.raises(ConfigError, match="has no class pictures"):
        run("train", root, *SMALL, "objective=prior", "run=none")
    assert not (root / "outputs" / "none").exists()


def test_captioned_pictures_and_a_missing_prompt_are_refused(root, tmp_path):
    captioned = photographs(tmp_path / "captioned", ("chelsea",))
    with pytest.raises(CaptionError, match="with captions beside the one prompt"):
        Prompted(captioned, "a photo of sks cat", 32)
    with pytest.raises(ConfigError, match="no prompt"):
        Prompted(root / "subject", " ", 32)
    with pytest.raises(ConfigError, match="no pictures of the class"):
        ClassPictures(None, "a photo of a cat", 32)


def test_the_prior_term_scales_with_its_weight_and_the_terms_sum_to_the_mean():
    denoiser, batch = Spy(), make_batch(4, experts=False)
    batch = replace(batch, dataset_ids=torch.tensor([0, 1, 0, 1]))
    common = {"timesteps": lambda u, path, tokens: u, "null_text": NULL}
    full = PriorPreservation(**common, prior_weight=1.0).loss(denoiser, batch, 0)
    half = PriorPreservation(**common, prior_weight=0.5).loss(denoiser, batch, 0)
    none = PriorPreservation(**common, class_source=7).loss(denoiser, batch, 0)
    torch.testing.assert_close(full["flow"] + full["prior"], none["flow"])
    torch.testing.assert_close(half["prior"], full["prior"] / 2)
    assert full["prior"] > 0 and none["prior"] == 0
    with pytest.raises(ConfigError, match="prior_weight"):
        PriorPreservation(**common, prior_weight=-1.0)
