"""data=original_cache: a store with the original's bits, and runs that need no teacher for it."""

import pytest
import torch

from tests import original_caches
from tests.app.runs import SMALLEST, run, settings
from tests.original_caches import COUNT, FITTING, LENGTH, PROMPTS, WIDTH, write
from tinyflux_pl.app.caches.sources import open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, DataError, SpecMismatch, StaleCache, TinyFluxError
from tinyflux_pl.experts import teacher
from tinyflux_pl.extraction.columns import images_of
from tinyflux_pl.text.hashed_words import HashedWords

SMALL = tuple(line for line in SMALLEST if not line.startswith("text."))
ALL = ("data.sources.original_cache.train.split=all",)
COLUMNS = {
    "latents": ("encodings", "latents"),
    "text.tokens": ("encodings", "t5_embeds"),
    "text.pooled": ("encodings", "clip_pooled"),
    "lune.features": ("lune", "features"),
    "sol.stats": ("sol", "stats"),
    "sol.spatial": ("sol", "spatial"),
}


def line(root, *more):
    return ("data=original_cache", f"data.root='{root}/original'", *FITTING, *more)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "original")
    return tmp_path


def stored(root):
    return CacheStore.open(root / "cache" / "original_cache" / "train")


def test_the_store_holds_the_bits_of_the_original(root):
    run("extract", root, *line(root, "experts=lune_sol", *ALL))
    store, original = stored(root), original_caches.tensors()
    assert store.captions(range(COUNT)) == PROMPTS
    for column, (part, key) in COLUMNS.items():
        assert torch.equal(store.gather(column, range(COUNT)), original[part][key]), column
    expected = HashedWords(WIDTH, LENGTH).encode(PROMPTS).mask
    assert torch.equal(store.gather("text.mask", range(COUNT)), expected)


def test_a_run_trains_on_it_without_any_teacher(root, monkeypatch, capsys):
    def refuse(*arguments, **settings):
        raise AssertionError("a teacher was loaded")

    monkeypatch.setattr(teacher.Teacher, "__init__", refuse)
    words = line(root, "experts=lune_sol", *SMALL, "steps=2", "run=x", "preflight=true")
    run("train", root, *words)
    output = capsys.readouterr().out
    assert "the data has latents and no pictures" in output
    assert "original_cache/train: lune" in output, "the plan names what is copied"
    assert directory.read(root / "outputs" / "x" / "checkpoints" / "step_0000002").step == 2


def test_a_note_names_embeddings_of_another_encoder(root, capsys):
    run("extract", root, *line(root))
    assert "the stored text" not in capsys.readouterr().out
    part = original_caches.tensors()["encodings"]
    other = {**part, "t5_embeds": part["t5_embeds"].flip(0)}
    torch.save(other, root / "original" / "encodings.pt")
    run("extract", root, *line(root, "rebuild=true"))
    assert "the stored text (tokens) differs by" in capsys.readouterr().out


MISFITS = {
    "latents of 48 channels": (SpecMismatch, ("codec.fold=2",)),
    "latents of 32 x 32 pixels": (SpecMismatch, ("data.image_size=64",)),
    "8 tokens of width 16": (SpecMismatch, ("text.width=32",)),
    "lune.features is": (SpecMismatch, ("teacher.width=24",)),
    "sol.stats is": (SpecMismatch, ("teacher.stats=4",)),
    "lune was cached with clock=literal": (ConfigError, ("experts.lune.clock=matched",)),
    "sol was cached at": (SpecMismatch, ("experts.sol.t_buckets=[0.1,0.5]",)),
    "and so no maps": (ConfigError, ("+data.hint=canny",)),
}


@pytest.mark.parametrize("message", MISFITS)
def test_columns_that_do_not_fit_are_refused_before_anything_is_written(root, message):
    kind, words = MISFITS[message]
    with pytest.raises(kind, match=message) as caught:
        run("extract", root, *line(root, "experts=lune_sol", *words))
    assert caught.value.where and caught.value.cure
    assert not list(root.glob("cache/**/*.safetensors"))


def test_an_expert_that_the_cache_lacks_is_named(root):
    (root / "original" / "sol.pt").unlink()
    with pytest.raises(
        DataError, match=r"nothing of the expert sol; its experts: lune\n"
    ) as caught:
        run("extract", root, *line(root, "experts=lune_sol"))
    assert "experts=none" in caught.value.cure
    with pytest.raises(DataError, match="reads pictures by a codec of its own") as caught:
        run("extract", root, *line(root, "experts=sol", "teacher=embedded", "codec.fold=4"))
    assert "experts.sol" in caught.value.where


def test_other_features_make_their_own_group_stale_and_a_rebuild_copies_them(root, capsys):
    words = line(root, "experts=lune_sol")
    run("extract", root, *words)
    part = original_caches.tensors()["lune"]
    torch.save({**part, "features": -part["features"]}, root / "original" / "lune.pt")
    with pytest.raises(StaleCache, match="the cached 'lune' was made from other inputs: content"):
        run("extract", root, *words)
    capsys.readouterr()
    run("extract", root, *words, "rebuild=true")
    rows = {r.split()[0]: r for r in capsys.readouterr().out.splitlines() if " computed" in r}
    assert "0 kept" in rows["lune"] and "0 computed" in rows["sol"]
    features = stored(root).gather("lune.features", [0])
    kept = CacheStore.open(root / "cache" / "original_cache" / "train").captions([0])[0]
    assert torch.equal(features[0], -part["features"][PROMPTS.index(kept)])


def test_a_run_of_this_project_teaches_velocities_from_stored_latents(root):
    run("train", root, *line(root, *SMALL, "steps=1", "run=first"))
    taught = ("experts=denoiser", "pathway=velocity", "teacher=checkpoint", "steps=1", "run=second")
    checkpoint = f"teacher.checkpoint='{root}/outputs/first'"
    run("train", root, *line(root, *SMALL, *taught, checkpoint, "preflight=true"))
    velocities = stored(root).gather("denoiser_velocity.velocity", [0])
    assert velocities.shape[1:] == (10, 48, 8, 8)


def test_nothing_asks_for_a_picture_and_who_does_is_refused(root):
    config = settings("train", root, *line(root, *SMALL))
    (source,) = open_sources(Parts.from_config(config))
    with pytest.raises(DataError, match="there is no picture") as caught:
        images_of([source.train.records[0]])
    assert caught.value.where.startswith("encodings.pt[")


def test_a_cache_without_prompts_needs_an_encoder_that_attends_to_padding(root):
    part = original_caches.tensors()["encodings"]
    torch.save({**part, "prompts": None}, root / "original" / "encodings.pt")
    words = line(root, "data.allow_missing_captions=true")
    with pytest.raises(ConfigError, match="cannot tell which of them are padding"):
        run("extract", root, *words)


def test_the_recipes_name_what_is_wrong_in_three_lines(root):
    (root / "original" / "lune.pt").write_bytes(b"\x80\x02}.")
    with pytest.raises(TinyFluxError) as caught:
        run("extract", root, *line(root, "experts=lune"))
    assert [word.strip().split(":")[0] for word in str(caught.value).splitlines()[1:]] == [
        "where",
        "do",
    ]
