"""Pairs of sequences from files: reading, splits, and refusals with their cure."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError
from tinyflux_pl.data.sequences.codecs import conditions_for, identity_for
from tinyflux_pl.data.sequences.files import Sequences


def arrays(pairs=40, tokens=6, length=5, seed=0, **more):
    random = np.random.default_rng(seed)
    defaults = {
        "target": random.normal(3.0, 2.0, (pairs, tokens, 2)).astype(np.float32),
        "condition": random.normal(size=(pairs, length, 4)).astype(np.float32),
    }
    return {name: value for name, value in {**defaults, **more}.items() if value is not None}


def written(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    (save_file if path.suffix == ".safetensors" else lambda a, p: np.savez(p, **a))(content, path)
    return path


def everything(root):
    source = Sequences(root, "all", 0.0)
    return source, source.pairs(range(len(source)))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_npz_and_safetensors_give_equal_pairs(tmp_path, suffix):
    content = arrays(vector=np.ones((40, 3), np.float32), label=np.arange(40))
    source, pairs = everything(written(tmp_path / f"a{suffix}", **content))
    assert np.array_equal(pairs.target.numpy(), content["target"])
    assert np.array_equal(pairs.condition.numpy(), content["condition"])
    assert pairs.labels[7] == "7" and pairs.vector.shape == (40, 3)
    assert pairs.target_mask.all() and pairs.condition_mask.all()
    assert pairs.condition_ids[3, 4].tolist() == [4.0, 0.0, 0.0] and pairs.target_ids[
        3, 4
    ].tolist() == [0.0, 4.0, 0.0]
    assert source.shape.tokens == 6 and source.shape.width == 2 and source.shape.axes == 3


@pytest.mark.parametrize("kind", [">f4", "f2", "f8", np.longdouble])
def test_numbers_of_every_width_and_order_are_read(tmp_path, kind):
    content = arrays()
    _, pairs = everything(
        written(tmp_path / "a.npz", **{name: part.astype(kind) for name, part in content.items()})
    )
    assert np.array_equal(pairs.target.numpy(), content["target"].astype(kind).astype(np.float32))


def test_ids_and_masks_are_read_from_the_file(tmp_path):
    shared, ids_of_file = (
        np.arange(12).reshape(6, 2),
        np.random.default_rng(0).integers(0, 99, (40, 5, 2)),
    )
    mask = np.arange(5)[None] < np.random.default_rng(1).integers(1, 6, (40, 1))
    path = written(
        tmp_path / "a.npz",
        **arrays(target_ids=shared, condition_ids=ids_of_file, condition_mask=mask),
    )
    _, pairs = everything(path)
    assert torch.equal(pairs.target_ids[9], torch.from_numpy(shared).float())
    real = torch.from_numpy(mask)
    assert torch.equal(pairs.condition_mask, real)
    assert torch.equal(pairs.condition_ids[real], torch.from_numpy(ids_of_file).float()[real])
    assert (pairs.condition[~real] == 0).all() and (pairs.condition_ids[~real] == 0).all()


def test_files_of_several_lengths_are_padded_to_the_longest(tmp_path):
    written(tmp_path / "data" / "a.npz", **arrays(10, 6, 5))
    written(tmp_path / "data" / "deep" / "b.safetensors", **arrays(8, 4, 7, seed=1))
    written(tmp_path / "data" / ".hidden" / "c.npz", **arrays(8, 4, 7, seed=2))
    source, pairs = everything(tmp_path / "data")
    assert (
        len(source) == 18
        and pairs.target.shape == (18, 6, 2)
        and pairs.condition.shape == (18, 7, 4)
    )
    assert pairs.target_mask.sum(1).tolist() == [6] * 10 + [4] * 8
    assert pairs.condition_mask.sum(1).tolist() == [5] * 10 + [7] * 8
    mixed = source.pairs([12, 3, 11])
    assert torch.equal(mixed.target, pairs.target[[12, 3, 11]])
    assert torch.equal(mixed.condition_ids, pairs.condition_ids[[12, 3, 11]])


def test_splits_share_no_pair_and_copies_stay_together(tmp_path):
    content = arrays(200)
    doubled = {name: np.concatenate([value, value[::-1]]) for name, value in content.items()}
    path = written(tmp_path / "a.npz", **doubled)
    train, validation = Sequences(path, "train", 0.2), Sequences(path, "validation", 0.2)
    assert len(train) + len(validation) == 400 and 40 <= len(validation) <= 120
    assert not {identity for identity, _ in train.sample_keys()} & {
        identity for identity, _ in validation.sample_keys()
    }
    assert (
        train.fingerprint()
        != validation.fingerprint()
        == train.of_split("validation").fingerprint()
    )
    assert len(Sequences(written(tmp_path / "two.npz", **arrays(2)), "validation")) == 1


def test_a_record_holds_its_target_and_a_name_that_identifies_its_pair(tmp_path):
    path = written(tmp_path / "a.npz", **arrays(label=np.arange(40)))
    train = Sequences(path, "train", 0.2)
    record = train[3]
    assert record.image.shape == (6, 1, 2) and record.image.dtype == np.float32
    assert record.attributes["target_ids"].shape == (6, 3)
    validation = train.of_split("validation")
    pairs = train.named([validation.names([1])[0], record.caption, validation.names([0])[0]])
    assert torch.equal(pairs.target[1, :, None], torch.from_numpy(record.image))
    assert torch.equal(pairs.target[[0, 2]], validation.pairs([1, 0]).target)
    assert pairs.labels[1] == record.caption.split("(")[1].rstrip(")")
    assert [train.prompts(5, "held_out", seed) for seed in (0, 0)] == [
        train.prompts(5, "held_out")
    ] * 2
    for wrong in ("a red circle", "train/9999", "test/0", ""):
        with pytest.raises(CaptionError, match="names no pair"):
            train.named([wrong])


def test_the_verifier_rejects_targets_of_other_pairs_and_the_mean(tmp_path):
    train = Sequences(written(tmp_path / "a.npz", **arrays(300)), "train", 0.2)
    prompts = train.prompts(40, "held_out")
    truth = train.named(prompts).target
    near = truth + 0.3 * torch.randn_like(truth)
    kept = train.verifier().check(near.mT[..., None], prompts)
    assert set(kept) == {"all", "truth", "mean"}
    assert (
        kept["all"].float().mean() > 0.9
        and kept["truth"].all()
        and kept["mean"].float().mean() < 0.2
    )
    wrong = train.verifier().check(near.flip(0).mT[..., None], prompts)
    assert wrong["all"].float().mean() < 0.2
    pictures, captions_of_pictures = train.pictures(near.mT[..., None], prompts)
    assert (
        pictures.shape == (40, 3, 5, 6)
        and pictures.abs().max() <= 1
        and len(captions_of_pictures) == 40
    )


def test_widths_moments_and_shared_ids_come_from_the_training_split(tmp_path):
    vector = np.random.default_rng(3).normal(5.0, 2.0, (400, 3)).astype(np.float32)
    mask = np.arange(5)[None] < np.random.default_rng(1).integers(1, 6, (400, 1))
    train = Sequences(
        written(tmp_path / "a.npz", **arrays(400, vector=vector, condition_mask=mask)), "train", 0.1
    )
    codec, text = identity_for(train), conditions_for(train, "float32")
    pairs = train.pairs(range(len(train)))
    latents = codec.encode(pairs.target.mT[..., None])
    assert (
        latents.mean((0, 2, 3)).abs().max() < 1e-4
        and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-2
    )
    embeddings = text.embeddings(
        pairs.condition, pairs.condition_ids, pairs.condition_mask, pairs.vector
    )
    assert embeddings.tokens[embeddings.mask][:, :4].mean(0).abs().max() < 1e-4
    assert (embeddings.pooled.std(0) - 1).abs().max() < 1e-2
    assert codec.ids[4] == [0.0, 4.0, 0.0] and text.ids[4] == [4.0, 0.0, 0.0]
    assert torch.equal(text.encode(train.names([5])).tokens, embeddings.tokens[5:6])
    shared_ids = np.random.default_rng(0).integers(0, 9, (400, 6, 3))
    wandering = Sequences(
        written(tmp_path / "b.npz", **arrays(400, target_ids=shared_ids)), "train", 0.1
    )
    assert identity_for(wandering).ids is None
    with pytest.raises(ConfigError, match="float16 would round"):
        conditions_for(train, "float16")
    with pytest.raises(ConfigError, match="pairs of sequences"):
        identity_for(None)


def test_padding_values_are_not_read(tmp_path):
    mask = np.arange(5)[None] < np.random.default_rng(1).integers(1, 6, (40, 1))
    content = arrays(condition_mask=mask, condition_ids=np.ones((40, 5, 3)))
    clean, _ = everything(written(tmp_path / "a.npz", **content))
    for name in ("condition", "condition_ids"):
        content[name] = np.where(mask[..., None], content[name], np.nan).astype(np.float32)
    padded, pairs = everything(written(tmp_path / "b.npz", **content))
    assert pairs.condition.isfinite().all() and padded.fingerprint() == clean.fingerprint()


BAD = {
    "no target": ({"target": None}, "no target; it holds condition"),
    "a typo": ({"condition_id": np.zeros((40, 5, 3))}, "unknown array 'condition_id'"),
    "two dimensions": ({"target": np.zeros((40, 6))}, r"target is \(40, 6\), not"),
    "fewer targets": ({"target": np.zeros((39, 6, 2))}, r"target is \(39, 6, 2\)"),
    "ids of other length": ({"target_ids": np.zeros((40, 5, 3))}, "target_ids is"),
    "ids of two spaces": (
        {"target_ids": np.zeros((6, 2)), "condition_ids": np.zeros((5, 3))},
        "2 columns",
    ),
    "not finite": (
        {"target": np.where(np.arange(40)[:, None, None] < 7, 1.0, np.nan) * np.ones((1, 6, 2))},
        "pair 7",
    ),
    "beyond fp32": ({"condition": np.full((40, 5, 4), 1e300)}, "pair 0, .* not finite in fp32"),
    "flat ids": ({"target_ids": np.zeros(6)}, r"\(40, 6, columns\) or \(6, columns\)"),
    "a flat vector": ({"vector": np.zeros(40)}, r"vector is \(40,\), .* \(40, channels\)"),
    "no pairs": (
        {"target": np.zeros((0, 6, 2)), "condition": np.zeros((0, 5, 4))},
        r"condition is \(0, 5, 4\): empty",
    ),
    "labels of no number": ({"label": np.full(40, np.nan)}, "label holds more than whole numbers"),
    "labels of halves": ({"label": np.arange(40) + 0.5}, "label holds more than whole numbers"),
    "lists of lists": (
        {"target": np.array([np.zeros((n % 3 + 1, 2)) for n in range(40)], dtype=object)},
        "(?s)not numbers.*pad sequences to one length and give a mask",
    ),
    "mask of numbers": ({"condition_mask": np.full((40, 5), 2)}, "more than 0 and 1"),
    "mask that leaves nothing": ({"target_mask": np.zeros((40, 6))}, "without any token"),
    "words": ({"target": np.array([["a"]])}, "holds <U1, not numbers"),
    "objects": ({"target": np.array([{"a": 1}], dtype=object)}, "not numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_pair_files_are_refused_by_name(tmp_path, case):
    changes, message = BAD[case]
    path = written(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message) as error:
        Sequences(path)
    assert str(path) in str(error.value) and "do:" in str(error.value)


def test_incompatible_files_are_refused_by_name(tmp_path):
    written(tmp_path / "a.npz", **arrays())
    written(tmp_path / "b.npz", **arrays(vector=np.ones((40, 3))))
    with pytest.raises(DataError, match=r"vector: 1 in a\.npz, 3 in b\.npz"):
        Sequences(tmp_path)
    for nothing in (tmp_path / "none", tmp_path / "none.npz"):
        with pytest.raises(DataError, match="no such file or folder"):
            Sequences(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file that ends in"):
        Sequences(tmp_path / "empty")
    with pytest.raises(ConfigError, match="split"):
        Sequences(tmp_path, "test")
