"""On its way to a GPU nothing makes the host wait; on its way back everything does."""

from dataclasses import fields, replace

import torch

from tests.pretended_gpu import PretendedGPU
from tinyflux_pl.core import rng
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, TextEmbeddings


def full_batch():
    """A batch with every part there is; the rows of its text share their memory."""
    text = TextEmbeddings(
        torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2)
    ).expand(2)
    real = torch.ones(2, 16, dtype=torch.bool)
    batch = Batch(
        torch.ones(2, 3, 4, 4), text, torch.arange(2), torch.zeros(2, dtype=torch.long), ["a", "b"]
    )
    return replace(
        batch,
        experts={"lune.features": torch.ones(2, 10, 3)},
        expert_present={"lune": torch.ones(2, dtype=torch.bool)},
        masks=torch.ones(2, 4, 4),
        references=(torch.ones(2, 3, 4, 4),),
        inpaint=torch.ones(2, 5, 4, 4),
        size_ids=torch.ones(2, 6),
        target_ids=torch.ones(2, 16, 3),
        target_mask=real,
    )


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    )
    if isinstance(value, Batch | TextEmbeddings):
        children = [getattr(value, field.name) for field in fields(value)]
    return [tensor for part in children for tensor in tensors(part)]


def test_a_batch_is_copied_to_a_gpu_from_pinned_memory_except_its_ids():
    batch = full_batch()
    for sent in (batch, None):
        with PretendedGPU() as gpu:
            moved = (sent or batch.pin_memory()).to("cuda")
            assert moved.latents.device.type == moved.text.mask.device.type == "cuda"
            assert moved.sample_ids.device.type == moved.dataset_ids.device.type == "cpu"
        assert (gpu.sent, gpu.waited) == (len(tensors(batch)) - 2, 0)
        assert all(
            torch.equal(one, other)
            for one, other in zip(tensors(batch), tensors(moved), strict=True)
        )


def test_copies_from_the_gpu_are_synchronised():
    with PretendedGPU() as gpu:
        there = full_batch().to("cuda")
        back = there.to("cpu")
    assert torch.equal(back.latents, there.latents) and gpu.unsafe == 0


def test_text_embeddings_are_cast_to_the_requested_dtype():
    text = full_batch().text
    with PretendedGPU() as gpu:
        moved = text.to("cuda", torch.bfloat16)
    assert (
        moved.tokens.dtype == moved.pooled.dtype == torch.bfloat16
        and moved.mask.dtype == torch.bool
    )
    assert (gpu.sent, gpu.waited) == (3, 0)


def test_noise_of_a_sample_is_bit_equal_in_any_batch():
    ids = [5, 2**62, 7, 11, 3]
    alone = [torch.randn(3, 8, 5, generator=rng.generator(1, "noise", i, 4)) for i in ids]
    with PretendedGPU() as gpu:
        to_device(rng.normal((3, 8, 5), 1, "noise", ids, 4, pinned=True), "cuda")
    assert (gpu.sent, gpu.waited) == (1, 0)
    assert torch.equal(rng.normal((3, 8, 5), 1, "noise", ids, 4), torch.stack(alone))
