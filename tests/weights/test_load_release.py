"""Where a release's network lies; tests/denoisers/test_released.py reads real ones."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint, HubError, UntrustedFile
from tinyflux_pl.weights import hub, load_release

REVISION = "0123456789" * 4


def test_only_the_folder_of_the_network_is_fetched(tmp_path, monkeypatch):
    calls = []

    def fetch(name, revision, allow):
        calls.append((name, revision, allow))
        (tmp_path / "transformer").mkdir()
        save_file({"a": torch.ones(1)}, tmp_path / "transformer" / "model.safetensors")
        return tmp_path

    monkeypatch.setattr(hub, "_fetch", fetch)
    release = load_release.find("owner/name", REVISION, "transformer")
    assert release.weights.tensors().keys() == {"a"} and release.config is None
    ((name, revision, allow),) = calls
    assert (name, revision) == ("owner/name", REVISION) and all(
        line.startswith("transformer/") for line in allow
    )
    with pytest.raises(HubError, match="not pinned"):
        load_release.find("owner/name", "main", "transformer")


def test_an_index_may_only_name_safetensors_of_its_folder(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, folder / "x-1.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x-1.safetensors"}}))
    assert load_release.find(str(folder), None, "").weights.tensors()["a"].tolist() == [1.0]
    for elsewhere in ("../outside.safetensors", "/etc/x-1.safetensors", "x-1.bin"):
        index.write_text(json.dumps({"weight_map": {"a": elsewhere}}))
        with pytest.raises(UntrustedFile, match="names"):
            load_release.find(str(folder), None, "")
    for none in ("{}", "[1]", "{"):
        index.write_text(none)
        with pytest.raises(CorruptCheckpoint, match="index"):
            load_release.find(str(folder), None, "")


def test_ambiguous_or_unsafe_files_are_refused(tmp_path):
    (tmp_path / "net.bin").write_bytes(b"x")
    with pytest.raises(CorruptCheckpoint, match="not a complete safetensors file"):
        load_release.find(str(tmp_path / "net.bin"), None, "")
    with pytest.raises(HubError, match=r"no safetensors weights: net\.bin"):
        load_release.find(str(tmp_path), None, "")
    for name in "ab":
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        HubError, match=r"2 safetensors and no index: a\.safetensors, b\.safetensors"
    ):
        load_release.find(str(tmp_path), None, "")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match="not JSON"):
        load_release.find(str(tmp_path / "a.safetensors"), None, "")


def test_keys_ignored_by_the_reference_are_accepted_and_every_weight_is_filled(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(
        {"weight": torch.ones(2, 2), "bias": torch.ones(2), "rope.cache": torch.ones(1)}, file
    )
    release = load_release.find(str(file), None, "")
    with torch.device("meta"):
        linear = torch.nn.Linear(2, 2)
        linear.register_buffer("table", torch.ones(1), persistent=False)
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected: rope\.cache"):
        load_release.fill(linear, release, torch.float32)
    with pytest.raises(CheckpointMismatch, match="no release holds table"):
        load_release.fill(linear, release, torch.float32, ignored=[r"^rope\."])


def test_a_pipeline_without_the_network_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    for name in ("flux1-dev", "ae"):
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        HubError, match=r"no unet/ in this FluxPipeline: ae\.safetensors, flux1-dev\.safetensors"
    ):
        load_release.find(str(tmp_path), None, "unet")


def test_a_quantization_config_next_to_a_named_file_is_ignored(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "gptq"}})
    )
    save_file({"a": torch.ones(1)}, tmp_path / "net.safetensors")
    assert load_release.find(
        str(tmp_path / "net.safetensors"), None, ""
    ).weights.tensors().keys() == {"a"}


def test_integer_tensors_are_refused_as_weights(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file({"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.ones(2)}, file)
    with torch.device("meta"):
        linear = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointMismatch, match=r"weight is packed as torch\.int8[\s\S]*bfloat16"):
        load_release.fill(linear, load_release.find(str(file), None, ""), torch.float32)


def test_a_folder_of_packed_weights_is_refused_before_they_are_read(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "gptq"}})
    )
    with pytest.raises(CheckpointMismatch, match="packed by gptq"):
        load_release.find(str(tmp_path), None, "")
