"""Division of a batch by the profile's memory or the user's settings; none on a CPU."""

import pytest

from tests.app.runs import run, settings
from tinyflux_pl.app import hardware
from tinyflux_pl.app.memory import training_memory
from tinyflux_pl.core.errors import ConfigError, MemoryPlanError

# Pictures so large that a step of 64 does not fit into a small memory.
LARGE = (
    "model.num_double_layers=1",
    "model.num_single_layers=2",
    "data.image_size=64",
    "hardware=gpu_12gb",
    "hardware.batch_size=64",
    "hardware.context_gb=0",  # of memories smaller than a context
)


def divided(root, *overrides):
    config, plan = training_memory.choose_division(settings("train", root, *overrides))
    return config.hardware, plan


@pytest.mark.parametrize(("profile", "memory"), [("gpu_12gb", 12), ("a100_40gb", 40)])
def test_the_published_size_fits_every_gpu_profile_at_512_pixels(profile, memory, tmp_path):
    overrides = (
        "model=deep",
        f"hardware={profile}",
        "data.image_size=512",
        "hardware.batch_size=64",
    )
    chosen, plan = divided(tmp_path, *overrides)
    assert plan.fits and plan.memory.worst().total < memory * 2**30
    assert chosen.accumulation * plan.sizes.on_rank == 64 and plan.sizes.on_rank >= 8
    assert chosen.gradient_checkpointing is plan.gradient_checkpointing
    if memory == 12:  # and what the profile asked for before does not fit
        settings_of_user = ("hardware.accumulation=2", "hardware.gradient_checkpointing=true")
        with pytest.raises(
            MemoryPlanError, match=r"(?s)'step' needs .*hardware\.accumulation=auto"
        ):
            divided(tmp_path, *overrides, *settings_of_user)


def test_accumulation_follows_the_memory_and_keeps_the_global_batch(tmp_path):
    parts = {}
    for memory in ("4", "0.3", "0.15"):
        chosen, plan = divided(tmp_path, *LARGE, f"hardware.memory_gb={memory}")
        assert chosen.batch_size == 64 == chosen.accumulation * plan.sizes.on_rank
        assert plan.memory.worst().total <= float(memory) * 2**30
        parts[memory] = chosen.accumulation, chosen.gradient_checkpointing
    assert parts["4"] == (1, False) and parts["4"] < parts["0.3"] < parts["0.15"]
    with pytest.raises(MemoryPlanError, match=r"hardware\.memory_gb"):
        divided(tmp_path, *LARGE, "hardware.memory_gb=0.02")


def test_explicit_accumulation_and_checkpointing_are_kept_or_refused(tmp_path):
    chosen, _ = divided(
        tmp_path, *LARGE, "hardware.accumulation=8", "hardware.gradient_checkpointing=true"
    )
    assert (chosen.accumulation, chosen.gradient_checkpointing) == (8, True)
    with pytest.raises(MemoryPlanError, match="accumulation=auto"):
        divided(tmp_path, *LARGE, "hardware.memory_gb=0.1", "hardware.accumulation=1")


def test_weights_of_a_release_are_planned_in_fp32(tmp_path):
    size = (
        "model=sd35_medium",
        "data.image_size=64",
        "optimizer=adamw",
        "hardware=h100",
        "hardware.batch_size=1",
    )
    planner = training_memory.Planner(settings("train", tmp_path, *size))
    count = sum(parameter.numel() for parameter in planner.denoiser.parameters())
    assert planner.config.model["dtype"] == "bfloat16"
    assert sum(parameter.nbytes for parameter in planner.denoiser.parameters()) == 4 * count


def test_auto_on_a_cpu_is_the_undivided_batch(tmp_path):
    chosen, plan = divided(tmp_path)
    assert plan is None and (chosen.accumulation, chosen.gradient_checkpointing) == (1, False)
    by_name, _ = divided(tmp_path, "hardware=cpu")
    assert chosen == by_name


def test_the_hardware_line_names_device_memory_and_precision(tmp_path, capsys):
    config = hardware.set_up(settings("train", tmp_path, "hardware.precision=32-true"))
    assert config.hardware.accelerator == "cpu"
    output = capsys.readouterr().out
    assert output.startswith("hardware: CPU, ") and "GiB of memory, precision 32-true" in output


def test_the_memory_plan_needs_neither_gpu_nor_weights(tmp_path, capsys):
    run("train", tmp_path, "model=deep", "hardware=gpu_12gb", "preflight=plan")
    output = capsys.readouterr().out
    assert "of 10.80 GiB" in output and "step" in output and "accumulated" in output
    run("train", tmp_path, "preflight=plan")
    assert "samples x 1 accumulated, without gradient checkpointing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "-1", "many", "null"])
@pytest.mark.parametrize("key", ["accumulation", "drawn_at_once"])
def test_invalid_division_settings_are_refused_by_key(key, value, tmp_path):
    with pytest.raises(ConfigError, match=key):
        run("train", tmp_path, f"hardware.{key}={value}")
