"""The memory that CUDA takes for itself stands in plans for a card, and in no others."""

import pytest
import torch

from tests.app.runs import settings
from tinyflux_pl.app.hardware import context_bytes
from tinyflux_pl.app.memory import inference_memory, training_memory
from tinyflux_pl.app.reporting import report
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.engine.memory_plan import CONTEXT, GIB

SMALL = ("model.num_double_layers=1", "model.num_single_layers=2", "data.image_size=64")


@pytest.mark.parametrize(
    ("words", "gigabytes"),
    [
        (("hardware=gpu_12gb",), 0.5),
        (("hardware=gpu_12gb", "hardware.context_gb=2"), 2),
        (("hardware=gpu_12gb", "hardware.context_gb=0"), 0),
        (("hardware=cpu", "hardware.memory_gb=12"), 0),
    ],
)
def test_a_plan_of_training_reserves_it_on_a_card(words, gigabytes, tmp_path, capsys):
    _, plan = training_memory.choose_division(settings("train", tmp_path, *SMALL, *words))
    for stage in plan.memory.stages:
        expected = 0 if stage.host else gigabytes * GIB
        assert stage.rows.get(CONTEXT, 0) == expected
    report.division(plan)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith(CONTEXT) for line in lines) == bool(gigabytes)


def test_a_larger_context_leaves_less_of_the_card_to_a_step(tmp_path):
    words = (*SMALL, "hardware=gpu_12gb", "hardware.memory_gb=2", "hardware.batch_size=64")
    counts = []
    for reserved in (0, 1.7):
        config = settings("train", tmp_path, *words, f"hardware.context_gb={reserved}")
        chosen, plan = training_memory.choose_division(config)
        assert plan.fits
        counts.append((chosen.hardware.gradient_checkpointing, chosen.hardware.accumulation))
    assert counts[1] > counts[0]


@pytest.mark.parametrize("accelerator", ["gpu", "cpu"])
def test_a_plan_of_drawing_reserves_it_on_a_card(accelerator, tmp_path, monkeypatch):
    line = ("model=sdxl", f"hardware.accelerator={accelerator}", "height=64", "width=64")
    config = settings("generate", tmp_path, *line)
    assert context_bytes(config.hardware) == (GIB // 2 if accelerator == "gpu" else 0)
    plan = inference_memory.plan(config)
    counts = {stage.rows.get(CONTEXT, 0) for stage in plan.memory.stages}
    assert counts == {context_bytes(config.hardware)}
    # CUDA says what is free beside its context
    free = plan.memory.worst(plan.host).total - context_bytes(config.hardware)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peak_memory, "available_bytes", lambda device: free)
    assert inference_memory.batch_size(config) == 1
