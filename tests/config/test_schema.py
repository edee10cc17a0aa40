"""Keys without a `_target_`: a wrong type, range or choice is refused before building."""

import pytest

from tests.app.runs import configuration
from tinyflux_pl.app import components
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.drawing import build_pipeline
from tinyflux_pl.config import schema
from tinyflux_pl.core.errors import ConfigError

HARDWARE = [
    ("hardware.batch_size=big", "an integer"),
    ("hardware.batch_size=0", "at least 1"),
    ("hardware.accumulation=0", "at least 1"),
    ("hardware.accelerator=tpu", "cpu, gpu"),
    ("hardware.precision=bf17", "32-true, bf16-mixed"),
    ("hardware.precision=bf16-true", "32-true, bf16-mixed"),
    ("hardware.strategy=fsdp", "ddp"),
    ("hardware.devices=0", "hardware.devices=1"),
    ("hardware.devices=two", "auto"),
    ("hardware.devices=-1", "hardware.devices=1"),  # of a CPU there is no such number
    ("hardware.workers=-1", "at least 0"),
    ("hardware.threads=0", "at least 1"),
    ("hardware.compile=maybe", "true or false"),
    ("+hardware.batchsize=3", "did you mean hardware.batch_size?"),
]
DATA = [
    ("data.evaluation_prompts=many", "an integer"),
    ("data.evaluation_prompts=-1", "at least 0"),
    ("data.in_memory=3", "true or false"),
    ("data.limit=0", "at least 1"),  # of a key that may be null, too
    ("data.store_dtype=float8", "float16"),
    ("data.shard_size=0", "at least 1"),
    ("data.extraction_batch=0.5", "an integer"),
    ("data.sources.shapes.weight=heavy", "a number"),
    ("data.sources.shapes.weight=0", "above 0"),
    ("data.sources.shapes=none", "cache"),
    ("data.sources.shapes.train=5", "a mapping"),
    ("+release=foo", "release.KEY"),
    ("+release={spacing: even, dynamic_shift: flux1, scheduler: 5}", "a mapping"),
    ("+release={spacing: even, dynamic_shift: flux1, wieghts: x}", "release.weights"),
    ("teacher.seed=x", "an integer"),
    ("teacher.lune=7", "teacher=NAME"),
    ("paths.cache=5", "text"),
]
TRAINING = [
    ("steps=0", "at least 1"),
    ("steps=1.5", "an integer"),
    ("seed=x", "an integer"),
    ("preflight=later", "only"),
    ("export_teacher=moon", "lune"),
    ("resume_changed=perhaps", "true or false"),
    ("callbacks.ema=null", "decay"),
    ("callbacks.extra=[{a: 1}]", "_target_"),
    ("+callbacks.guard.open_ended=true", "leave it out"),
    ("callbacks.ema.decay=2", "at least 0 and below 1"),
    ("callbacks.ema.decay=1.0", "below 1"),
    ("callbacks.ema.warmup=3", "true or false"),
    ("callbacks.checkpoint.every_steps=x", "an integer"),
    ("callbacks.checkpoint.every_steps=-1", "at least 0"),
    ("callbacks.checkpoint.keep=-3", "at least 1"),
    ("callbacks.preview.count=0", "at least 1"),
    ("callbacks.preview.prompts=[1,2]", "text"),
    ("callbacks.validation.times=[1.5]", "at least 0 and at most 1"),
    ("callbacks.validation.times=[]", "[0.1, 0.5, 0.9]"),
    ("callbacks.guard.loss_factor=1.0", "above 1"),
    ("callbacks.guard.norm_factor=nan", "above 1"),
    ("callbacks.guard.max_recent=-1", "at least 0"),
    ("callbacks.log_every_steps=x", "an integer"),
    ("callbacks.clip=0", "above 0"),
    ("callbacks.clip=hard", "a number"),
    ("sampler.steps=some", "an integer"),
    ("guidance.scale=strong", "a number"),
    ("guidance.interval=[a,b]", "a number"),
    ("guidance.interval=0.5", "a number"),
    ("guidance=as_trained", "a number"),
]
EXTRACTING = [
    ("rebuild=perhaps", "true or false"),
    ("repair=5", "true or false"),
    ("doctor=7", "text"),
]
DRAWING = [
    ("n=0", "at least 1"),
    ("n=few", "an integer"),
    ("seed=x", "an integer"),
    ("height=0", "at least 1"),
    ("height=-16", "at least 1"),
    ("width=wide", "an integer"),
    ("weights=best", "averaged"),
    ("plan=maybe", "check"),
    ("output=5", "text"),
    ("checkpoint=5", "text"),
    ("reference=[1]", "text"),
    ("sampler.steps=some", "an integer"),
    ("sampler.steps=0", "at least 1"),
    ("sampler.solver=hoin", "heun"),
    ("guidance.scale=strong", "a number"),
    ("guidance.scale=-1", "0 or more"),
    ("guidance.interval=0.5", "a number"),
]
CASES = {
    "train": HARDWARE + DATA + TRAINING,
    "extract": HARDWARE + DATA + EXTRACTING,
    "generate": HARDWARE + DRAWING,
}


def key_of(line):
    """The dotted key, or the one above where several are judged together."""
    return line.lstrip("+").partition("=")[0]


@pytest.mark.parametrize(
    ("task", "line", "cure"), [(task, *case) for task, cases in CASES.items() for case in cases]
)
def test_an_invalid_value_is_refused_by_its_dotted_key_before_building(
    tmp_path, monkeypatch, task, line, cure
):
    def reached(*_, **__):
        raise AssertionError("the run went on")

    monkeypatch.setattr(components.Parts, "from_config", reached)
    monkeypatch.setattr(build_pipeline, "pipeline", reached)
    required = (
        () if task != "generate" or line.startswith("checkpoint") else ("checkpoint=nowhere",)
    )
    config = configuration(
        task, tmp_path, *required, *(("prompt=x",) if task == "generate" else ()), line
    )
    with pytest.raises(ConfigError) as caught:
        getattr(recipes, task)(config)
    error = caught.value
    assert error.what and error.where.startswith(key_of(line)) and cure in error.cure, str(error)


@pytest.mark.parametrize("task", CASES)
@pytest.mark.parametrize("hardware", ["cpu", "ddp", "gpu_12gb", "h100"])
def test_every_default_of_conf_is_valid(tmp_path, task, hardware):
    for line in ((), ("hardware.devices=[0,1]",), ("hardware.devices=auto",)):
        schema.read(
            configuration(task, tmp_path, f"hardware={hardware}", *line[: hardware != "cpu"]), task
        )


def test_values_stored_in_a_checkpoint_may_be_null_for_generate(tmp_path):
    drawn = configuration(
        "generate", tmp_path, "checkpoint=x", "guidance.scale=2", "sampler.steps=4", "height=64"
    )
    schema.read(drawn, "generate")


@pytest.mark.parametrize("task", ["train", "extract"])
def test_a_missing_gpu_is_refused_before_building(tmp_path, monkeypatch, task):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable GPU") as caught:
        getattr(recipes, task)(configuration(task, tmp_path, "hardware.accelerator=gpu"))
    assert caught.value.where == "hardware.accelerator" and not (tmp_path / "cache").exists()


UNREAD = (
    "optimizer.lr=1e-4",
    "+optimizer.x=1",
    "schedule=constant",
    "sampler.steps=3",
    "guidance.scale=2",
    "steps=3",
)
UNREAD += (
    "objective.error=huber",
    "timesteps=beta",
    "callbacks.ema.decay=0.9",
    "logger=none",
    "++resume=auto",
)


@pytest.mark.parametrize("line", UNREAD)
def test_extract_refuses_keys_that_it_does_not_read(tmp_path, line):
    config = configuration("extract", tmp_path, line)
    with pytest.raises(ConfigError, match="extraction does not read") as caught:
        recipes.extract(config)
    assert caught.value.where == key_of(line) and "train.py" in caught.value.cure
    assert not (tmp_path / "cache").exists()


def test_an_experiment_may_set_keys_that_extract_does_not_read(tmp_path, monkeypatch):
    """So that one experiment serves extraction and training."""

    class WentOn(Exception):
        pass

    def reached(config):
        raise WentOn

    monkeypatch.setattr(components.Parts, "from_config", reached)
    with pytest.raises(WentOn):
        recipes.extract(
            configuration("extract", tmp_path, "data=digit_halves", "experiment=flux_core_digits")
        )
