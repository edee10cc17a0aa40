"""Which files of a folder hold a network: as the libraries save them, as the hub's client keeps them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tinyflux_pl.core import hub
from tinyflux_pl.core.errors import CorruptCheckpoint, HubError
from tinyflux_pl.core.weight_folder import fetch, weights_in

STEM = "diffusion_pytorch_model"
REVISION = "0123456789" * 4


def put(folder, *names, value=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_file({name: torch.full((1,), value)}, folder / name)
    return folder


def index(folder, name, *shards):
    (folder / name).write_text(json.dumps({"weight_map": {str(i): shard for i, shard in enumerate(shards)}}))


def names(folder, stem=STEM):
    found = weights_in(folder, (stem,))
    return None if found is None else (found.variant, [file.name for file in found.files])


def test_the_plain_weights_win_over_variants_beside_them(tmp_path):
    put(tmp_path, f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", f"{STEM}.non_ema.safetensors", "other.safetensors")
    assert names(tmp_path) == (None, [f"{STEM}.safetensors"])


def test_a_variant_is_read_where_it_is_alone(tmp_path):
    put(tmp_path, f"{STEM}.fp16.safetensors", "sd_xl_offset_lora.safetensors")
    assert names(tmp_path) == ("fp16", [f"{STEM}.fp16.safetensors"])
    put(tmp_path, f"{STEM}.bf16.safetensors")
    with pytest.raises(HubError, match=r"bf16, fp16"):
        names(tmp_path)


@pytest.mark.parametrize(
    "shards",
    [
        ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"),
        ("model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"),  # of older versions
    ],
)
def test_shards_of_a_variant_beside_plain_shards(tmp_path, shards):
    put(tmp_path, *shards)
    index(tmp_path, "model.safetensors.index.fp16.json", *shards)
    assert names(tmp_path, "model") == ("fp16", list(shards))
    plain = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index(tmp_path, "model.safetensors.index.json", *plain)  # which a client brings along with the variant
    assert names(tmp_path, "model") == ("fp16", list(shards))
    put(tmp_path, *plain)
    assert names(tmp_path, "model") == (None, list(plain))


def test_a_shard_that_is_missing_is_named(tmp_path):
    put(tmp_path, "model-00001-of-00002.safetensors")
    index(
        tmp_path, "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    )
    with pytest.raises(CorruptCheckpoint, match=r"model-00002-of-00002\.safetensors is missing"):
        names(tmp_path, "model")


def test_nothing_is_made_of_other_files(tmp_path):
    put(tmp_path, "flux1-dev.safetensors", "ae.safetensors", f"{STEM}-00001-of-00002.safetensors")
    assert names(tmp_path) is None


def cache(root):
    """A snapshot as the hub's client keeps it: links into blobs that are named by their hash."""
    blobs, snapshot = root / "models--owner--name" / "blobs", root / "models--owner--name" / "snapshots" / REVISION
    put(blobs, "0a1b")
    (snapshot / "transformer").mkdir(parents=True)
    (snapshot / "transformer" / f"{STEM}.safetensors").symlink_to(blobs / "0a1b")
    return snapshot


def test_links_of_the_hubs_cache_are_read_under_their_own_names(tmp_path):
    snapshot = cache(tmp_path)
    assert names(snapshot / "transformer") == (None, [f"{STEM}.safetensors"])


def test_the_root_of_a_cached_repository_leads_to_its_revision(tmp_path):
    snapshot = cache(tmp_path)
    with pytest.raises(HubError, match=rf"several revisions[\s\S]*{REVISION}"):
        fetch(str(snapshot.parents[1]), None, "transformer", (STEM,))
    (snapshot / "transformer" / f"{STEM}.safetensors").resolve().unlink()
    assert names(snapshot / "transformer") is None  # a link whose blob was removed


def test_of_a_repository_variants_come_only_where_there_is_nothing_else(tmp_path, monkeypatch):
    asked = []

    def fetched(name, revision, allow):
        asked.append(allow)
        folder = put(tmp_path / "unet", "x.safetensors")
        if len(asked) == 2:
            put(folder, f"{STEM}.fp16.safetensors")
        return tmp_path

    monkeypatch.setattr(hub, "_fetch", fetched)
    assert fetch("owner/name", REVISION, "unet", (STEM,)) == tmp_path
    assert not any(".*.safetensors" in line for line in asked[0]) and "unet/config.json" in asked[0]
    assert f"unet/{STEM}.*.safetensors" in asked[1] and len(asked) == 2
    fetch("owner/name", REVISION, "unet", (STEM,))
    put(tmp_path / "unet", f"{STEM}.safetensors")
    fetch("owner/name", REVISION, "unet", (STEM,))
    assert len(asked) == 4  # nothing more is asked for where the first answer holds weights
