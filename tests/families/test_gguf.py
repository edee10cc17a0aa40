"""Networks and encoders from GGUF files equal those of the same values in safetensors."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import gguf_files, original_layouts, releases_flux1, releases_flux2, releases_stability
from tests.app.runs import run, settings
from tests.denoisers.flux2_flux3_original import original_layout
from tests.families import drawing
from tests.families.test_single_files import image, structure_overrides
from tests.weights.flux1_original import to_original
from tinyflux_pl.app.drawing.build_pipeline import pipeline
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.app.memory.planned_parts import without_unneeded_weights
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers.flux2 import Flux2Denoiser
from tinyflux_pl.denoisers.flux3 import Flux3Denoiser
from tinyflux_pl.engine import memory_plan

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return releases_flux1.flux1(tmp_path_factory.mktemp("flux1"))


def original_flux(folder):
    stored = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return to_original(stored)


def both(folder, tensors, kind):
    """The file as GGUF, and with the same values as safetensors."""
    meant = gguf_files.write(folder / "net.gguf", tensors, kind)
    assert any(not torch.equal(meant[key], tensors[key].float()) for key in meant)
    save_file({k: v.contiguous() for k, v in meant.items()}, folder / "net.safetensors")
    return folder / "net.gguf", folder / "net.safetensors"


def words_of(folder, length="text.length=16"):
    small = structure_overrides("model.structure", folder / "transformer")
    return [*small, f"release.weights='{folder}'", length]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_flux1_from_gguf_draws_what_the_same_values_draw(kind, flux, tmp_path):
    packed, plain = both(tmp_path, original_flux(flux), kind)
    picture = image("flux1_dev", packed, *words_of(flux))
    assert torch.equal(picture, image("flux1_dev", plain, *words_of(flux)))
    assert float(picture.std()) > 0.01


def test_sd35_from_gguf_draws_what_the_same_values_draw(tmp_path):
    pipeline = releases_stability.sd35(tmp_path / "release")
    tensors = original_layouts.sd3_original(pipeline.transformer)
    tensors = {f"model.diffusion_model.{key}": value for key, value in tensors.items()}
    packed, plain = both(tmp_path, tensors, "Q5_0")
    words = words_of(tmp_path / "release", "text.t5_length=16")
    picture = image("sd35_medium", packed, *words)
    assert torch.equal(picture, image("sd35_medium", plain, *words))
    assert float(picture.std()) > 0.01


@pytest.mark.parametrize("family", [Flux2Denoiser, Flux3Denoiser])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flux2_and_flux3_load_strictly_from_gguf(family, dtype, tmp_path):
    if family is Flux2Denoiser:
        net = releases_flux2.flux2(tmp_path / "release", guided=True).transformer
    else:
        net = releases_flux2.flux3(tmp_path / "release")[0]
    structure = {k: v for k, v in net.config.items() if not k.startswith("_")}
    tensors = original_layout(family.name, net)
    packed, plain = both(tmp_path, tensors, "Q4_0")
    of_gguf, of_plain = (
        family.released.load(structure, weights=str(file), dtype=dtype).state_dict()
        for file in (packed, plain)
    )
    assert of_gguf.keys() == of_plain.keys()
    assert all(torch.equal(of_gguf[key], of_plain[key]) for key in of_gguf)
    tensors.pop(next(key for key in tensors if key.endswith("query_norm.scale")))
    gguf_files.write(tmp_path / "lacking.gguf", tensors)
    with pytest.raises(CheckpointMismatch, match=r"1 missing[\s\S]*lacking\.gguf"):
        family.released.load(structure, weights=str(tmp_path / "lacking.gguf"), dtype=dtype)


def test_engine_precision_packs_what_a_gguf_file_holds(flux, tmp_path, capsys):
    packed, plain = both(tmp_path, original_flux(flux), "Q8_0")

    def line(file, *more):
        names = (f"model.weights='{file}'", *words_of(flux), *drawing.EXACT, *more)
        return ("model=flux1_dev", "prompt=red", "height=32", "width=32", "sampler.steps=2", *names)

    pictures = []
    for file in (packed, plain):
        output = tmp_path / file.suffix
        run("generate", tmp_path, *line(file, "engine.precision=int8"), f"output={output}")
        pictures.append(Image.open(output / "image_0000.png").tobytes())
    assert pictures[0] == pictures[1]
    assert "signal to noise" in capsys.readouterr().out

    def planned(*words):
        return inference_memory.plan(settings("generate", tmp_path, *words)).parts[0].bytes

    unpacked = planned(*line(packed, "model.packed=false"))
    assert unpacked == planned(*line(plain))
    assert planned(*line(packed, "engine.precision=int8")) < unpacked
    # the blocks of Q8_0 stay as they are where nothing reads their numbers
    assert planned(*line(packed)) < 0.5 * unpacked


def test_the_plan_of_a_gguf_file_counts_and_names_its_blocks(flux, tmp_path):
    file, _ = both(tmp_path, original_flux(flux), "Q8_0")
    words = (*words_of(flux), "prompt=red", "height=32", "width=32", *drawing.EXACT)
    line = ("model=flux1_dev", f"model.weights='{file}'", *words)
    part = inference_memory.plan(settings("generate", tmp_path, *line)).parts[0]
    denoiser = pipeline(settings("generate", tmp_path, *line)).denoiser
    assert part.dtype == "GGUF Q8_0" and part.bytes == memory_plan.weight_bytes(denoiser)
    assert part.parameters == sum(value.numel() for value in original_flux(flux).values())
    for reader in ("engine.precision=int8", "control=map.png"):
        with pytest.raises(ConfigError, match=rf"{reader.split('=')[0]} reads[\s\S]*model\.packed"):
            packed = settings("generate", tmp_path, *line, "model.packed=true", reader)
            inference_memory.plan(packed)


def test_a_plan_of_a_gguf_file_alone_takes_codec_and_text_by_structure(tmp_path):
    tensors = {"a.weight": torch.randn(4, 32)}
    gguf_files.write(tmp_path / "a.gguf", tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    for name, kept in (("a.gguf", None), ("a.safetensors", str(tmp_path / "a.safetensors"))):
        line = ("model=flux1_dev", f"model.weights='{tmp_path / name}'", "prompt=red")
        config = without_unneeded_weights(settings("generate", tmp_path, *line))
        assert config.codec["weights"] == config.text["t5"] == kept


def test_a_t5_from_gguf_embeds_as_the_same_values_do(flux, tmp_path):
    import gguf

    stored = load_file(flux / "text_encoder_2" / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    named = {names.get_name(key, (".weight",)): value for key, value in stored.items()}
    meant = gguf_files.write(tmp_path / "t5.gguf", named, "Q8_0", "t5encoder")
    assert any(not torch.equal(meant[key], value) for key, value in named.items())
    back = {names.get_name(key, (".weight",)): key for key in stored}
    save_file(
        {back[key]: value.contiguous() for key, value in meant.items()}, tmp_path / "t5.safetensors"
    )
    small = structure_overrides("text.structures.t5", flux / "text_encoder_2")
    words = (*small, "text.length=16", f"text.tokenizer='{flux}'")
    pictures = [
        image("flux1_dev", flux, f"text.t5='{tmp_path / name}'", *words)
        for name in ("t5.gguf", "t5.safetensors")
    ]
    assert torch.equal(*pictures) and float(pictures[0].std()) > 0.01
