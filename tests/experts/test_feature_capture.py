"""Capturing features of a UNet: exact, without kept maps, and without a trace in the teacher."""

import pytest
import torch

from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.experts import sol_attention
from tinyflux_pl.experts.lune_features import mid_block_mean
from tinyflux_pl.experts.sol_attention import (
    StatisticsAttention,
    capture_layers,
    summarise,
)


def inputs(teacher, samples):
    latents, text, _ = samples
    return teacher.denoiser, latents, torch.full((4,), 0.3), Conditioning(text)


def test_capture_at_the_mid_block_is_exact_and_skips_the_decoder(lune_teacher, samples):
    denoiser, latents, t, cond = inputs(lune_teacher, samples)
    kept, later = [], []
    hook = denoiser.unet.mid_block.register_forward_hook(lambda m, i, o: kept.append(o))
    denoiser.unet.up_blocks[0].register_forward_hook(lambda m, i, o: later.append(1))
    denoiser(latents, t, cond)
    hook.remove()
    assert later == [1]
    torch.testing.assert_close(
        mid_block_mean(denoiser, latents, t, cond), kept[0].mean((2, 3)), rtol=0, atol=0
    )
    assert later == [1]
    assert not denoiser.unet.mid_block._forward_hooks


def test_streamed_statistics_equal_those_of_full_attention_maps(sol_teacher, samples, monkeypatch):
    """Compared with full maps recomputed from each layer's inputs, for any tile size."""
    denoiser, latents, t, cond = inputs(sol_teacher, samples)
    inputs_seen = []
    for name, module in denoiser.unet.named_modules():
        if name.endswith("attn1"):
            module.register_forward_pre_hook(lambda m, args: inputs_seen.append((m, args[0])))
    layers = capture_layers(denoiser, latents, t, cond)
    assert len(layers) == len(inputs_seen) == 7
    for layer, (attn, hidden) in zip(layers, inputs_seen, strict=True):
        query, key = (attn.head_to_batch_dim(part(hidden)) for part in (attn.to_q, attn.to_k))
        rows = attn.get_attention_scores(query, key).unflatten(0, (4, attn.heads)).mean(1)
        expected = sol_attention.LayerStatistics(4, layer.grid, rows.device)
        expected.add(rows, 0)
        torch.testing.assert_close(layer.statistics(), expected.statistics(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.importance(), expected.importance(), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(sol_attention, "TILE_SIZE", 4 * 2 * 64 * 5)
    tiled = capture_layers(denoiser, latents, t, cond)
    for actual, expected in zip(summarise(tiled, 8), summarise(layers, 8), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_no_attention_map_is_kept_in_memory(sol_teacher, samples):
    denoiser, latents, t, cond = inputs(sol_teacher, samples)
    for layer in capture_layers(denoiser, latents, t, cond):
        numbers_kept = sum(v.numel() for v in vars(layer).values() if torch.is_tensor(v))
        assert numbers_kept <= layer.count * (2 + 4) + 16  # places, and column sums of four samples


def test_recording_attention_changes_neither_output_nor_network(sol_teacher, samples):
    denoiser, latents, t, cond = inputs(sol_teacher, samples)
    plain, before = denoiser(latents, t, cond).sample, denoiser.unet.attn_processors
    watcher = StatisticsAttention(sol_attention.grids_of(8, 8))
    with sol_attention.recording(denoiser, watcher):
        torch.testing.assert_close(denoiser(latents, t, cond).sample, plain, rtol=0, atol=0)
    with pytest.raises(RuntimeError), sol_attention.recording(denoiser, watcher):
        raise RuntimeError
    assert denoiser.unet.attn_processors == before
