"""A pinned repository draws what its folder draws, and brings no file more than that takes."""

import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from tests import releases_flux2, releases_stability
from tests.families import drawing

REVISION = "0123456789" * 4
UNUSED = {  # that no one asked for: other formats, a variant, the original file, a LoRA
    "unet/diffusion_pytorch_model.bin",
    "unet/model.onnx",
    "sd_xl_base_1.0.safetensors",
    "offset_lora.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/model.fp16.safetensors",
    "README.md",
    "evil.py",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository in tmp_path/remote that caches fetched files as the client does."""
    remote, cache = tmp_path / "remote", tmp_path / "models--owner--name"
    remote.mkdir()

    def snapshot_download(repository, revision, allow_patterns):
        assert (repository, revision) == ("owner/name", REVISION)
        names = [
            file.relative_to(remote).as_posix() for file in remote.rglob("*") if file.is_file()
        ]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            blob, link = (
                cache / "blobs" / name.replace("/", "_"),
                cache / "snapshots" / revision / name,
            )
            blob.parent.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(remote / name, blob)
            link.unlink(missing_ok=True)
            link.symlink_to(blob)
        return str(cache / "snapshots" / revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return remote, cache / "snapshots" / REVISION


def fetched(snapshot):
    return {file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()}


def image(model, weights, *overrides):
    return drawing.draw(
        drawing.project_pipeline(model, weights, 32, 48, "sampler.steps=2", *overrides)
    )


def drawn_twice(model, remote, *small):
    """From the repository, and from the same files as a folder."""
    pinned = image(model, "owner/name", f"model.revision='{REVISION}'", *small)
    torch.testing.assert_close(pinned, image(model, remote, *small), rtol=0, atol=1e-5)


def test_only_needed_files_of_an_sdxl_repository_are_fetched(hub):
    remote, snapshot = hub
    releases_stability.sdxl(remote)
    for name in UNUSED:
        (remote / name).write_bytes(b"x")
    drawn_twice("sdxl", remote)
    assert not fetched(snapshot) & UNUSED
    drawn_again = image("sdxl", snapshot)  # the cache's own folder, given by hand
    torch.testing.assert_close(drawn_again, image("sdxl", remote), rtol=0, atol=1e-5)


def test_a_repository_with_one_variant_is_fetched(hub):
    remote, snapshot = hub
    pipeline = releases_stability.sdxl(remote)
    shutil.rmtree(remote)
    pipeline.to(torch.float16).save_pretrained(remote, variant="fp16")
    drawn_twice("sdxl", remote)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched(snapshot)


def test_a_flux2_repository_is_fetched_with_its_chat_template(hub):
    remote, snapshot = hub
    releases_flux2.flux2(remote, guided=False)
    assert (remote / "tokenizer" / "chat_template.jinja").is_file()
    drawn_twice("flux2_klein_4b", remote, "text.length=64", "text.layers=[1,2,4]")
    assert "tokenizer/chat_template.jinja" in fetched(snapshot)
