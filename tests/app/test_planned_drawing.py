"""The memory of pictures drawn before the first step, and of encoders that a step reads."""

import pytest

from tests.app.runs import SMALLEST, photographs, run, settings
from tests.methods.test_lora_runs import QUIET
from tinyflux_pl.app.memory.planned_text_step import text_activations
from tinyflux_pl.app.memory.training_memory import choose_division
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.engine.memory_plan import GIB
from tinyflux_pl.text.clip_pair import ClipPairText

PLANNED = ("hardware=gpu_12gb", "hardware.precision=32-true", "hardware.batch_size=2")
PLANNED += ("hardware.accumulation=1", "hardware.gradient_checkpointing=false")
PLANNED += ("hardware.drawn_at_once=1", "method.base_precision=null")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base, and pictures of a subject."""
    project = tmp_path_factory.mktemp("project")
    run("train", project, *SMALLEST, *QUIET, "run=base", "steps=1")
    for file in photographs(project / "subject", ("chelsea", "coffee")).glob("*.txt"):
        file.unlink()
    return project


def subject(root, count):
    words = ("method=dreambooth", "data=dreambooth", "method.rank=2", f"data.root='{root}/subject'")
    words += ('data.prompt="a photo of sks cat"', 'data.class_prompt="a photo of a cat"')
    start = (f"init='{root}/outputs/base'", "data.image_size=32", f"data.class_count={count}")
    return (*SMALLEST, "sampler.steps=1", "callbacks.preview.count=1", *words, *start)


def planned(root, *words):
    return choose_division(settings("train", root, *words))[1]


def test_the_class_is_a_stage_until_its_pictures_are_there(root):
    first = planned(root, *subject(root, 1), *PLANNED).memory.stages[0]
    assert first.name == "draw the class"
    training = planned(root, *subject(root, 1), *PLANNED).memory.stages
    step = next(stage for stage in training if stage.name == "step")
    # of the base alone: the adapter comes later
    assert 0 < first.rows["weights"] < step.rows["weights"]
    many = planned(root, *subject(root, 40), *PLANNED).memory.stages[0]
    sixteen = planned(root, *subject(root, 16), *PLANNED).memory.stages[0]
    assert many.rows == sixteen.rows  # that are drawn at once
    assert many.rows["activations"] > 8 * first.rows["activations"]
    run("train", root, *subject(root, 1), "run=drawn", "steps=1")
    names = [stage.name for stage in planned(root, *subject(root, 1), *PLANNED).memory.stages]
    assert "draw the class" not in names and "step" in names


def test_a_class_that_does_not_fit_is_refused_before_it_is_drawn(root):
    stages = planned(root, *subject(root, 40), *PLANNED).memory.stages
    drawing, *rest = stages
    largest = max(stage.total for stage in rest if not stage.host)
    assert drawing.total > largest, "so that the drawing alone decides"
    memory = f"hardware.memory_gb={(drawing.total + largest) / 2 / 0.9 / GIB}"
    with pytest.raises(MemoryPlanError, match=r"draw the class(?s:.)*data\.class_root=") as caught:
        planned(root, *subject(root, 40), *PLANNED, memory)
    assert len(str(caught.value).splitlines()) == 3
    folder = root / "cache" / "class_pictures"
    assert not [each for each in folder.glob("*") if len(list(each.glob("*.png"))) > 1]


def test_pictures_of_a_teacher_are_a_stage(tmp_path):
    words = (*SMALLEST, "data=shapes_drawn", *(w for w in PLANNED if "base_precision" not in w))
    first, *rest = planned(tmp_path, *words).memory.stages
    assert first.name == "draw the teacher" and first.rows["weights"] > 2**20  # of its own network
    assert first.rows["activations"] > 0 and all(s.name != first.name for s in rest)


def small_pair(t5_length):
    clip = {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 4}
    clip |= {"intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 64}
    clip |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 3, "num_heads": 2, "vocab_size": 64}
    structures = {"first": clip, "second": clip, "t5": t5}
    return ClipPairText(None, pooled="both", t5_length=t5_length, structures=structures)


def test_a_step_through_text_encoders_counts_each_of_them():
    clips = text_activations(small_pair(0), "32-true")
    short, long = (text_activations(small_pair(n), "32-true") for n in (64, 128))
    # every layer keeps at least its input and the vectors of queries, keys and values
    kept = 4 * 77 * 4 * 32 * 4
    assert clips.at(8) > 2 * 8 * kept
    assert clips.at(8) < short.at(8) < long.at(8) and short.at(16) > 1.7 * short.at(8)


def test_only_a_step_that_learns_a_word_counts_encoders(tmp_path):
    smallest = (word for word in SMALLEST if not word.startswith("text."))
    words = (*smallest, *PLANNED, "text=t5xxl_clip", "text.length=8")
    rows = {}
    for method in ("lora", "textual_inversion"):
        more = ("method.word=zorp",) if method == "textual_inversion" else ()
        plan = planned(tmp_path, *words, f"method={method}", *more)
        rows[method] = {stage.name: stage.rows for stage in plan.memory.stages}
    assert "activations of text encoders" in rows["textual_inversion"]["step"]
    assert "activations of text encoders" not in rows["lora"]["step"]
