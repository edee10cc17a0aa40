"""Runs of method=textual_inversion: trained, written, drawn and refused."""

import pytest
import torch

from tests import releases_stability
from tests.app.runs import SMALLEST, photographs, run, settings
from tests.methods.test_lora_runs import QUIET, step
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.weights.headers import metadata_of

MOVING = ("optimizer=adamw", "optimizer.lr=0.05", "schedule=constant", "schedule.warmup_steps=0")
WORD = (*SMALLEST, *QUIET, *MOVING, "method=textual_inversion", "method.word=large")
WORD += (
    "method.init_word=red",
    "callbacks.checkpoint.keep=9",
    "callbacks.checkpoint.every_steps=2",
)
PROMPT = "a large red circle, top left"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of two steps, and a word of four."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, *MOVING, "run=base", "steps=2")
    run("train", project, *WORD, f"init='{project}/outputs/base'", "run=word", "steps=4")
    return project


def drawn(root, *overrides):
    words = (*overrides, f"prompt='{PROMPT}'", "hardware.precision=32-true")
    built = pipeline(settings("generate", root, *words))
    return built, built.sampler.images(built.denoiser, [PROMPT], seed=3)


def test_only_the_word_learns_and_its_checkpoint_is_kilobytes(root):
    early, late = step(root, "word", 2), step(root, "word", 4)
    before, after = early.weights("raw"), late.weights("raw")
    assert set(after) == {"learned_word.tables.hashed", "learned_word.tables.hashed_pooled"}
    assert all(not torch.equal(before[key], after[key]) for key in after)
    size = sum(file.stat().st_size for file in late.path.glob("*"))
    assert size < 100_000, f"{size:,} bytes"
    built, _ = drawn(root, f"checkpoint='{root}/outputs/word'")
    base = step(root, "base", 2).weights()
    assert all(torch.equal(built.denoiser.state_dict()[key], value) for key, value in base.items())


def test_a_resumed_run_ends_with_the_same_bits(root):
    start = f"init='{root}/outputs/base'"
    run("train", root, *WORD, start, "run=broken", "steps=2")
    run("train", root, *WORD, start, "run=broken", "steps=4", "resume=auto")
    for which in ("raw", "averaged"):
        one, other = step(root, "word", 4).weights(which), step(root, "broken", 4).weights(which)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_exported_file_draws_on_the_base_as_the_run_does(root, tmp_path):
    file = root / "outputs" / "word" / "embedding.safetensors"
    assert metadata_of(file)["word"] == "large" and files.read_tensors(file)["hashed"].shape[0] == 1
    _, expected = drawn(root, f"checkpoint='{root}/outputs/word'")
    base = f"checkpoint='{root}/outputs/base'"
    built, picture = drawn(root, base, f"embedding='{root}/outputs/word'")
    torch.testing.assert_close(picture, expected)
    assert built.description()["embedding"][0]["word"] == "large"
    _, plain = drawn(root, base)
    assert not torch.allclose(picture, plain)
    _, renamed = drawn(root, base, f"embedding=['{file}:huge']")
    assert torch.equal(renamed, plain), "under another name the prompt does not have it"


def test_stored_prompts_are_those_of_the_words(root, tmp_path):
    base, store = f"checkpoint='{root}/outputs/base'", f"engine.prompts='{tmp_path}/prompts'"
    _, plain = drawn(root, base, store)
    _, with_word = drawn(root, base, store, f"embedding='{root}/outputs/word'")
    assert not torch.allclose(plain, with_word)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("method.word=''",), r"method\.word"),
        (("method.word='<large>'",), "one word"),
        (("method.vectors=0",), r"method\.vectors"),
        (("method.word=mug",), "no caption has the word"),
    ],
)
def test_wrong_choices_are_refused(root, words, reason):
    with pytest.raises(ConfigError, match=reason):
        run("train", root, *WORD, *words, f"init='{root}/outputs/base'", "run=wrong", "steps=1")


def test_a_batch_without_the_word_changes_nothing(root, tmp_path):
    """Of 8 batches of one caption some lack the word, and have no gradient by themselves."""
    one = ("hardware.batch_size=1", "steps=8", f"paths.outputs='{tmp_path}'")
    run("train", root, *WORD, f"init='{root}/outputs/base'", "run=rare", *one)
    assert (tmp_path / "rare" / "results.json").is_file()


def test_written_captions_without_the_word_are_refused_before_anything_is_encoded(root, tmp_path):
    photos = photographs(tmp_path / "photos", ("coffee", "rocket"), side=32)
    words = ("data=folder", f"data.root='{photos}'", "data.image_size=32", "preflight=only")
    with pytest.raises(ConfigError, match="no caption has the word"):
        run("train", root, *WORD, *words, f"init='{root}/outputs/base'", "run=wrong", "steps=1")
    assert not (root / "cache" / "folder").exists()


@pytest.mark.parametrize("more", [(), ("preflight=only",)])
def test_captions_by_rule_without_the_word_are_refused_before_anything_is_encoded(
    root, tmp_path, more
):
    words = ("method.word=mug", "data.sources.shapes.train.count=4", *more)
    cache = f"data.sources.shapes.cache='{tmp_path}/cache'"
    with pytest.raises(ConfigError, match="no caption has the word"):
        run("train", root, *WORD, *words, cache, f"init='{root}/outputs/base'", "run=wrong")
    assert not (tmp_path / "cache").exists()


def test_files_of_other_encoders_and_words_given_twice_are_refused(root, tmp_path):
    base = f"checkpoint='{root}/outputs/base'"
    files.write_tensors(tmp_path / "other.safetensors", {"clip_l": torch.zeros(1, 768)}, {})
    with pytest.raises(CheckpointMismatch, match="clip_l"):
        drawn(root, base, f"embedding='{tmp_path}/other.safetensors'")
    with pytest.raises(CheckpointMismatch, match="no embedding found"):
        drawn(root, base, f"embedding='{tmp_path}'")
    file = f"{root}/outputs/word"
    with pytest.raises(ConfigError, match="twice"):
        drawn(root, f"checkpoint='{root}/outputs/word'", f"embedding='{file}'")


def test_an_sdxl_s_file_is_read_by_diffusers_to_the_same_tokens(tmp_path):
    """clip_l and clip_g, as the scripts of AUTOMATIC1111, kohya and diffusers name them."""
    pipe = releases_stability.sdxl(tmp_path / "release")
    release = (f"model.weights='{tmp_path}/release'", "model.dtype=float32", "text.dtype=float32")
    words = ("model=sdxl", *release, *QUIET, *MOVING, "callbacks.validation.every_steps=0")
    teach = ("method=textual_inversion", "method.word=large", "method.init_word=red")
    run("train", tmp_path, *words, *teach, "hardware.batch_size=8", "run=word", "steps=1")
    file = tmp_path / "outputs" / "word" / "embedding.safetensors"
    tensors = files.read_tensors(file)
    assert set(tensors) == {"clip_l", "clip_g"}
    pairs = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}
    for table, (encoder, tokenizer) in pairs.items():
        parts = {"text_encoder": getattr(pipe, encoder), "tokenizer": getattr(pipe, tokenizer)}
        pipe.load_textual_inversion({"large": tensors[table]}, token="large", **parts)
    actual = pipeline(
        settings("generate", tmp_path, "model=sdxl", *release, f"embedding='{file}'", "plan=skip")
    )
    text = actual.sampler.text.encode(["a large red circle"])
    reference, _, pooled, _ = pipe.encode_prompt(
        "a large red circle", do_classifier_free_guidance=False
    )
    torch.testing.assert_close(text.tokens, reference.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.pooled, pooled.float(), atol=1e-5, rtol=1e-5)
