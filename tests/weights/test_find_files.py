"""The weight files of a folder, as saved by libraries and cached by the hub client."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.find_files import fetch, weights_in

STEM = "diffusion_pytorch_model"
REVISION = "0123456789" * 4


def put(folder, *names, value=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_file({name: torch.full((1,), value)}, folder / name)
    return folder


def index(folder, name, *shards):
    (folder / name).write_text(
        json.dumps({"weight_map": {str(i): shard for i, shard in enumerate(shards)}})
    )


def names(folder, stem=STEM):
    weights = weights_in(folder, (stem,))
    return None if weights is None else (weights.variant, [file.name for file in weights.files])


def test_unsuffixed_weights_take_precedence_over_variants(tmp_path):
    put(
        tmp_path,
        f"{STEM}.safetensors",
        f"{STEM}.fp16.safetensors",
        f"{STEM}.non_ema.safetensors",
        "other.safetensors",
    )
    assert names(tmp_path) == (None, [f"{STEM}.safetensors"])


def test_a_lone_variant_is_read(tmp_path):
    put(tmp_path, f"{STEM}.fp16.safetensors", "sd_xl_offset_lora.safetensors")
    assert names(tmp_path) == ("fp16", [f"{STEM}.fp16.safetensors"])
    put(tmp_path, f"{STEM}.bf16.safetensors")
    with pytest.raises(HubError, match=r"bf16, fp16"):
        names(tmp_path)


@pytest.mark.parametrize(
    "shards",
    [
        ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"),
        # of older versions
        ("model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"),
    ],
)
def test_shards_of_a_variant_are_read_unless_unsuffixed_shards_exist(tmp_path, shards):
    put(tmp_path, *shards)
    index(tmp_path, "model.safetensors.index.fp16.json", *shards)
    assert names(tmp_path, "model") == ("fp16", list(shards))
    plain = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    # which a client brings along with the variant
    index(tmp_path, "model.safetensors.index.json", *plain)
    assert names(tmp_path, "model") == ("fp16", list(shards))
    put(tmp_path, *plain)
    assert names(tmp_path, "model") == (None, list(plain))


def test_a_shard_that_is_missing_is_named(tmp_path):
    put(tmp_path, "model-00001-of-00002.safetensors")
    index(
        tmp_path,
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )
    with pytest.raises(CorruptCheckpoint, match=r"model-00002-of-00002\.safetensors is missing"):
        names(tmp_path, "model")


def test_files_of_unknown_names_are_not_weights(tmp_path):
    put(tmp_path, "flux1-dev.safetensors", "ae.safetensors", f"{STEM}-00001-of-00002.safetensors")
    assert names(tmp_path) is None


def cache(root):
    """A snapshot as the hub's client keeps it: links into blobs that are named by their hash."""
    blobs, snapshot = (
        root / "models--owner--name" / "blobs",
        root / "models--owner--name" / "snapshots" / REVISION,
    )
    put(blobs, "0a1b")
    (snapshot / "transformer").mkdir(parents=True)
    (snapshot / "transformer" / f"{STEM}.safetensors").symlink_to(blobs / "0a1b")
    return snapshot


def test_links_of_the_hub_cache_keep_their_names(tmp_path):
    snapshot = cache(tmp_path)
    assert names(snapshot / "transformer") == (None, [f"{STEM}.safetensors"])


def test_the_root_of_a_cached_repository_resolves_to_its_revision(tmp_path):
    snapshot = cache(tmp_path)
    with pytest.raises(HubError, match=rf"several revisions[\s\S]*{REVISION}"):
        fetch(str(snapshot.parents[1]), None, "transformer", (STEM,))
    (snapshot / "transformer" / f"{STEM}.safetensors").resolve().unlink()
    assert names(snapshot / "transformer") is None  # a link whose blob was removed


def test_variants_are_fetched_only_if_a_repository_has_no_other_weights(tmp_path, monkeypatch):
    calls = []

    def fetched(name, revision, allow):
        calls.append(allow)
        folder = put(tmp_path / "unet", "x.safetensors")
        if len(calls) == 2:
            put(folder, f"{STEM}.fp16.safetensors")
        return tmp_path

    monkeypatch.setattr(hub, "_fetch", fetched)
    assert fetch("owner/name", REVISION, "unet", (STEM,)) == tmp_path
    assert not any(".*.safetensors" in line for line in calls[0]) and "unet/config.json" in calls[0]
    assert f"unet/{STEM}.*.safetensors" in calls[1] and len(calls) == 2
    fetch("owner/name", REVISION, "unet", (STEM,))
    put(tmp_path / "unet", f"{STEM}.safetensors")
    fetch("owner/name", REVISION, "unet", (STEM,))
    assert len(calls) == 4  # nothing more is asked for where the first answer holds weights


def shards(folder, *parts, weight_map=None):
    """Shards with an index that names the first place of each key, by default."""
    named = {
        f"{STEM}-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, 1)
    }
    for name, part in named.items():
        save_file({key: value.clone() for key, value in part.items()}, folder / name)
    first = {key: name for name in reversed(named) for key in named[name]}
    content = {"weight_map": first if weight_map is None else weight_map(first, list(named))}
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(content))
    return list(named)


ONES, ZEROS = torch.ones(2, 2), torch.zeros(2, 2)


def test_the_index_decides_which_of_two_shards_holds_a_key(tmp_path):
    shards(tmp_path, {"a": ONES}, {"a": 2 * ONES, "b": ONES})
    assert weights_in(tmp_path, (STEM,)).tensors()["a"].tolist() == ONES.tolist()
    shards(
        tmp_path,
        {"a": ONES},
        {"a": 2 * ONES, "b": ONES},
        weight_map=lambda first, names: {**first, "a": names[1]},
    )
    with pytest.raises(
        CheckpointMismatch, match=r"does not name diffusion_pytorch_model-00001-of-00002"
    ):
        weights_in(tmp_path, (STEM,))  # of the first nothing is read


@pytest.mark.parametrize(
    ("parts", "weight_map", "error", "says"),
    [
        (
            ({"a": ONES}, {"b": ONES, "c": ONES}),
            lambda first, _: first | {"d": first["b"]},
            CorruptCheckpoint,
            "1 .* d ",
        ),
        (
            ({"a": ONES}, {"b": ONES}),
            lambda first, names: first | {"a": names[1]},
            CheckpointMismatch,
            "00001-of-00002",
        ),
        (
            ({"a": ONES, "x": ONES}, {"b": ONES}),
            lambda first, _: {k: first[k] for k in "ab"},
            CheckpointMismatch,
            "x in",
        ),
        (({"a": ONES}, {"b": ZEROS, "c": torch.ones(1)}), None, CorruptCheckpoint, "zeros alone"),
        (({"a": ONES}, {"b": ONES}), lambda *_: {}, CorruptCheckpoint, "names no weights"),
    ],
)
def test_an_index_that_contradicts_the_shards_is_refused(tmp_path, parts, weight_map, error, says):
    shards(tmp_path, *parts, weight_map=weight_map)
    with pytest.raises(error, match=rf"{says}[\s\S]*do:"):
        weights_in(tmp_path, (STEM,)).tensors()


def test_headers_are_read_through_the_index_too(tmp_path):
    shards(
        tmp_path, {"a": ONES}, {"a": torch.ones(3, 3), "b": torch.ones(1, dtype=torch.float8_e5m2)}
    )
    weights = weights_in(tmp_path, (STEM,))
    assert weights.shapes() == {"a": (2, 2), "b": (1,)}
    assert {key: (v.device.type, v.dtype) for key, v in weights.outlines().items()} == {
        "a": ("meta", torch.float32),
        "b": ("meta", torch.float8_e5m2),
    }


def test_the_configuration_chooses_between_variants(tmp_path):
    put(tmp_path, f"{STEM}.fp16.safetensors", f"{STEM}.non_ema.safetensors")
    with pytest.raises(HubError, match=r"fp16, non_ema[\s\S]*choose one: model\.variant=fp16"):
        weights_in(tmp_path, (STEM,), key="model.variant")
    for name in ("fp16", "non_ema"):
        assert weights_in(tmp_path, (STEM,), name).files == (
            tmp_path / f"{STEM}.{name}.safetensors",
        )
    put(tmp_path, f"{STEM}.safetensors")
    assert (
        weights_in(tmp_path, (STEM,)).variant is None
        and weights_in(tmp_path, (STEM,), "fp16").variant == "fp16"
    )
    with pytest.raises(
        HubError, match=r"no weights of the variant bf16; there are: plain, fp16, non_ema"
    ):
        weights_in(tmp_path, (STEM,), "bf16")
    with pytest.raises(ConfigError, match="no variant"):
        fetch(str(tmp_path), None, "", (STEM,), variant="../fp16")


def test_only_the_requested_variant_of_a_repository_is_fetched(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        hub, "_fetch", lambda name, revision, allow: calls.append(allow) or tmp_path
    )
    fetch("owner/name", REVISION, "unet", (STEM,), variant="fp16")
    ((config, *names),) = calls
    assert config == "unet/config.json" and names and all(".fp16" in name for name in names)
