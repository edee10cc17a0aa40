"""Weights that bitsandbytes packed: a file that it wrote, folders of networks, contradictions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases, releases_flux1
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.denoisers.flux1 import Flux1Denoiser
from tinyflux_pl.text.pretrained import load_encoder
from tinyflux_pl.weights import headers
from tinyflux_pl.weights.dequantize import plain

# nf4 with nested and plain scales, fp4, int8; `expected.` are the values that it returned for them
FILE = Path(__file__).parent / "data" / "written_by_bitsandbytes.safetensors"
STATE = "a.weight.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def stored():
    tensors = load_file(FILE)
    expected = {key: tensors.pop(key) for key in [*tensors] if key.startswith("expected.")}
    return tensors, {key.removeprefix("expected."): value for key, value in expected.items()}


def test_values_are_those_that_bitsandbytes_returned(stored):
    tensors, expected = stored
    read = plain(tensors, torch.float32, "f")
    assert read.keys() == expected.keys() and len(read) == 4
    for key, value in expected.items():
        assert torch.equal(read[key].to(value.dtype), value), key
    half = plain(tensors, torch.bfloat16, "f")
    assert all(torch.equal(half[key], read[key].bfloat16()) for key in read)


def test_headers_tell_the_shapes_before_weights_are_read(stored):
    expected = stored[1]
    outlines = {k: v for k, v in headers.outlines(FILE).items() if not k.startswith("expected.")}
    shapes = {k: tuple(v.shape) for k, v in plain(outlines, torch.float32, "f").items()}
    assert shapes == {key: tuple(value.shape) for key, value in expected.items()}
    assert all(value.is_meta for key, value in outlines.items() if "quant_state" not in key)


def nf4(weight: torch.Tensor, table: torch.Tensor, block: int = 64) -> dict[str, torch.Tensor]:
    """The parts of a packed weight by name, "" for its bytes; without nested scales."""
    flat = weight.flatten()
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    absmax = rows.abs().amax(1)
    levels = ((rows / absmax[:, None])[..., None] - table).abs().argmin(-1).flatten()[: len(flat)]
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float32", "shape": [*weight.shape]}
    return {
        "": (levels[0::2] * 16 + levels[1::2]).to(torch.uint8)[:, None],
        ".absmax": absmax,
        ".quant_map": table.clone(),
        ".quant_state.bitsandbytes__nf4": torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        ),
    }


def pack_folder(folder: Path, name: str, table: torch.Tensor) -> None:
    """Pack the matrices of a folder's blocks, and say so in its config.json."""
    tensors = load_file(folder / name)
    for key in [key for key, value in tensors.items() if value.ndim == 2 and "block" in key]:
        tensors |= {f"{key}{part}": value for part, value in nf4(tensors.pop(key), table).items()}
    save_file(tensors, folder / name)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))


def test_folders_of_a_network_and_an_encoder_load(stored, tmp_path):
    table = stored[0]["a.plain.weight.quant_map"]
    net = releases_flux1.transformer()
    net.save_pretrained(tmp_path / "net")
    pack_folder(tmp_path / "net", "diffusion_pytorch_model.safetensors", table)
    loaded = Flux1Denoiser.released.load({}, weights=str(tmp_path / "net"), dtype="float32")
    encoder = load_encoder("T5EncoderModel", releases.flan_t5(tmp_path / "t5"), "float32", "t5xxl")
    pack_folder(tmp_path / "t5", "model.safetensors", table)
    again = load_encoder("T5EncoderModel", tmp_path / "t5", "float32", "t5xxl")
    for before, after in ((net, loaded), (encoder, again)):
        was, now = before.state_dict(), after.state_dict()
        assert was.keys() == now.keys()
        packed = [key for key in was if not torch.equal(was[key], now[key])]
        assert len(packed) > 5
        for key in packed:
            # half of the largest distance between two levels, times the largest number
            assert (was[key] - now[key]).abs().max() < 0.16 * was[key].abs().max(), key


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({STATE: None}, "state is missing"),
        ({"a.weight": None}, "are missing"),
        ({"a.weight.absmax": None}, "are missing"),
        ({"a.weight.absmax": torch.ones(3)}, "3 scales for the shape"),
        ({"a.weight.quant_map": torch.ones(15)}, "scales for the shape"),
        ({STATE: {"shape": [2**39, 8], "blocksize": 64}}, "scales for the shape"),
        ({STATE: {"shape": [8, 16], "blocksize": 0}}, "no shape and block"),
        ({STATE: {"shape": [8, -16], "blocksize": 64}}, "no shape and block"),
        ({STATE: {"shape": [True, 16], "blocksize": 64}}, "no shape and block"),
        ({STATE: {"shape": "8", "blocksize": 64}}, "no shape and block"),
        ({STATE: [1]}, "no shape and block"),
        ({STATE: torch.full((70_000,), ord("["), dtype=torch.uint8)}, "no JSON"),
        ({"a.weight.nested_absmax": torch.ones(1)}, "lack a part"),
        ({STATE.replace("nf4", "nf3"): {}}, "packed as nf3"),
        ({"b.SCB": torch.ones(4)}, "no matrix of int8"),
        ({"b.weight": torch.ones(4, 4, dtype=torch.int8), "b.SCB": torch.ones(3)}, "3 scales"),
        (
            {
                "b.weight": torch.ones(4, 4, dtype=torch.int8),
                "b.SCB": torch.ones(4),
                "b.weight_format": torch.tensor(2, dtype=torch.uint8),
            },
            "another matrix product",
        ),
    ],
)
def test_parts_that_are_missing_or_disagree_are_refused(change, says, stored):
    parts = nf4(torch.randn(8, 16), stored[0]["a.plain.weight.quant_map"])
    tensors = {f"a.weight{part}": value for part, value in parts.items()}
    plain(tensors, torch.float32, "f")  # as they are they are read
    for key, value in change.items():
        if isinstance(value, dict | list):
            value = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        tensors[key] = value
    tensors = {key: value for key, value in tensors.items() if value is not None}
    with pytest.raises((CheckpointMismatch, CorruptCheckpoint), match=rf"{says}[\s\S]*do:"):
        plain(tensors, torch.float32, "f")
