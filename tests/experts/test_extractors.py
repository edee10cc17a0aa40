import pytest
import torch

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptureError, ConfigError
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.experts.lune_features import LuneFeatures, mid_block_mean
from tinyflux_pl.experts.sol import Sol
from tinyflux_pl.experts.sol_attention import (
    SolAttention,
    capture_layers,
)
from tinyflux_pl.extraction.parallel_blocks import run_parallel

STUDENT = LinearPath(noise_at=0)
BUCKETS = (0.05, 0.5, 0.95)


def lune(teacher, **changes):
    return LuneFeatures(teacher, STUDENT, **{"t_buckets": BUCKETS, "seed": 7, **changes})


def sol(teacher, **changes):
    return SolAttention(teacher, STUDENT, **{"t_buckets": BUCKETS, "seed": 7, **changes})


def test_extractors_return_named_features_of_declared_shapes(lune_teacher, sol_teacher, samples):
    features = lune(lune_teacher).extract(*samples)
    assert {k: tuple(v.shape) for k, v in features.items()} == {"lune.features": (4, 3, 16)}
    attention = sol(sol_teacher).extract(*samples)
    assert {k: tuple(v.shape) for k, v in attention.items()} == {
        "sol.stats": (4, 3, 4),
        "sol.spatial": (4, 3, 8, 8),
    }
    torch.testing.assert_close(attention["sol.spatial"].sum((2, 3)), torch.ones(4, 3))


def test_copies_own_their_networks_and_extract_equal_features_concurrently(
    lune_teacher, sol_teacher, samples
):
    for teacher, extractor in ((lune_teacher, lune), (sol_teacher, sol)):
        first = extractor(teacher)
        workers = [first, *first.copies(2)]
        nets = {id(worker.teacher.denoiser.unet) for worker in workers}
        assert len(nets) == 3 and len({id(worker.teacher.text) for worker in workers}) == 1
        expected, *features = run_parallel(
            workers, lambda worker, _: worker.extract(*samples), range(9)
        )
        assert len(features) == 8 and all(
            torch.equal(f[k], v) for f in features for k, v in expected.items()
        )


@pytest.mark.parametrize("max_batch", [1, 5, 12])
def test_features_do_not_depend_on_batch_size_or_composition(
    lune_teacher, sol_teacher, samples, max_batch
):
    latents, text, ids = samples
    for extractor, teacher in ((lune, lune_teacher), (sol, sol_teacher)):
        joint = extractor(teacher).extract(*samples)
        parts = extractor(teacher, max_batch=max_batch).extract(*samples)
        alone = extractor(teacher).extract(latents[2:3], text.select(slice(2, 3)), ids[2:3])
        for key, value in joint.items():
            torch.testing.assert_close(parts[key], value, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(alone[key], value[2:3], atol=1e-5, rtol=1e-4)


def test_the_teacher_receives_the_image_at_the_students_signal_to_noise_ratio(
    lune_teacher, sol_teacher, samples
):
    latents, text, ids = samples
    for teacher in (lune_teacher, sol_teacher):
        seen = []
        extractor = lune(teacher)
        extractor.capture = lambda x, tau, cond, seen=seen: (
            seen.append((x, tau)) or {"features": x.mean((2, 3))}
        )
        extractor.extract(latents, text, ids)
        ((x, tau),) = seen
        path = teacher.denoiser.path
        for row, (sample, k) in enumerate((s, k) for s in range(4) for k in range(3)):
            t = torch.tensor([BUCKETS[k]])
            noise = rng.normal(latents.shape[1:], 7, "extraction", [ids[sample]], k)
            expected = path.interpolate(latents[sample : sample + 1], noise, tau[row : row + 1])
            torch.testing.assert_close(x[row : row + 1], expected)
            if abs(STUDENT.log_snr(t)) < 5:  # inside Sol's table
                torch.testing.assert_close(
                    path.log_snr(tau[row : row + 1]), STUDENT.log_snr(t), atol=2e-3, rtol=1e-3
                )
    # noise is at the other end
    assert lune(lune_teacher).times().tolist() == pytest.approx([0.95, 0.5, 0.05])


def test_features_depend_on_image_prompt_and_seed(lune_teacher, samples):
    latents, text, ids = samples
    before = lune(lune_teacher).extract(*samples)["lune.features"]
    torch.testing.assert_close(
        lune(lune_teacher).extract(*samples)["lune.features"], before, rtol=0, atol=0
    )
    assert not torch.allclose(
        lune(lune_teacher).extract(latents + 0.5, text, ids)["lune.features"], before, atol=1e-3
    )
    other = text.select(torch.tensor([1, 2, 3, 0]))
    assert not torch.allclose(
        lune(lune_teacher).extract(latents, other, ids)["lune.features"], before, atol=1e-4
    )
    assert not torch.allclose(
        lune(lune_teacher, seed=8).extract(*samples)["lune.features"], before, atol=1e-3
    )


def test_the_literal_clock_ignores_the_image_and_runs_backwards(lune_teacher, sol_teacher, samples):
    latents, text, ids = samples
    times = []
    lune_teacher.denoiser.unet.time_proj.register_forward_pre_hook(
        lambda m, args: times.append(args[0])
    )
    first = lune(lune_teacher, clock="literal").extract(*samples)["lune.features"]
    torch.testing.assert_close(
        lune(lune_teacher, clock="literal").extract(latents + 1, text, ids)["lune.features"], first
    )
    assert times[0][:3].tolist() == pytest.approx([50, 500, 950])
    literal = sol(sol_teacher, clock="literal")
    torch.testing.assert_close(literal.times() * 999, torch.tensor([50.0, 500.0, 950.0]))
    stats = literal.extract(*samples)["sol.stats"]
    assert stats.shape[-1] == 3
    torch.testing.assert_close(stats[..., 2], 1 - stats[..., 1])
    with pytest.raises(ConfigError, match="clock"):
        lune(lune_teacher, clock="reversed")


def test_features_of_rectangular_latents_are_extracted(sol_teacher, samples):
    _, text, ids = samples
    features = sol(sol_teacher).extract(torch.randn(4, 12, 6, 14), text, ids)
    assert features["sol.spatial"].isfinite().all()


def test_nonfinite_features_and_networks_without_attention_are_refused(
    lune_teacher, sol_teacher, samples
):
    latents, text, _ = samples
    with torch.no_grad():
        lune_teacher.denoiser.unet.conv_in.bias[0] = float("nan")
        sol_teacher.denoiser.unet.conv_in.bias[0] = float("inf")
    with pytest.raises(CaptureError, match="finite"):
        lune(lune_teacher).extract(*samples)
    with pytest.raises(CaptureError, match="finite"):
        sol(sol_teacher).extract(*samples)
    config = {
        **sol_teacher.denoiser.unet_config,
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "mid_block_type": None,
    }
    blind = UNetDenoiser(
        config, LinearPath(1), "velocity", sol_teacher.denoiser.latent_spec, text_spec(sol_teacher)
    )
    t, cond = torch.full((4,), 0.5), Conditioning(text)
    with pytest.raises(CaptureError, match="no self-attention"):
        capture_layers(blind, latents, t, cond)
    with pytest.raises(CaptureError, match="middle block"):
        mid_block_mean(blind, latents, t, cond)


def text_spec(teacher):
    return teacher.denoiser.text_spec


def test_the_fingerprint_covers_every_setting_that_decides_the_features(lune_teacher):
    base = lune(lune_teacher).fingerprint()
    assert lune(lune_teacher, max_batch=3).fingerprint() == base
    for changes in ({"seed": 8}, {"t_buckets": (0.1, 0.9)}, {"clock": "literal"}):
        assert lune(lune_teacher, **changes).fingerprint() != base
    assert LuneFeatures(lune_teacher, LinearPath(1), BUCKETS, 7).fingerprint() != base
    lune_teacher.weights = "1" * 64
    assert lune(lune_teacher).fingerprint() != base


def test_three_statistics_equal_the_original_on_the_noised_image(sol_teacher, samples):
    four, three = sol(sol_teacher), sol(sol_teacher, stats=3)
    four_statistics, three_statistics = four.extract(*samples), three.extract(*samples)
    assert three_statistics["sol.stats"].shape[-1] == 3
    torch.testing.assert_close(
        three_statistics["sol.stats"][..., :2], four_statistics["sol.stats"][..., :2]
    )
    torch.testing.assert_close(
        three_statistics["sol.stats"][..., 2], 1 - four_statistics["sol.stats"][..., 1]
    )
    torch.testing.assert_close(three_statistics["sol.spatial"], four_statistics["sol.spatial"])
    assert three.fingerprint() != four.fingerprint() and "stats" not in four.fingerprint()
    assert (
        sol(sol_teacher, stats=3, clock="literal").fingerprint()
        == sol(sol_teacher, clock="literal").fingerprint()
    )


@pytest.mark.parametrize(("stats", "clock"), [(3, "matched"), (4, "matched"), (3, "literal")])
def test_sol_accepts_three_or_four_statistics(sol_teacher, samples, stats, clock):
    expert = Sol(stats=stats, clock=clock, t_buckets=BUCKETS)
    extracted = expert.extractor(sol_teacher, STUDENT, 7).extract(*samples)
    assert expert.ports(extracted, torch.full((4,), 0.3))["prior_stats"].shape == (4, stats)
    with pytest.raises(ConfigError, match="stats is"):
        Sol(stats=4 if clock == "literal" else 2, clock=clock).extractor(sol_teacher, STUDENT, 7)
