"""pathway=online: the teacher predicts in every step; nothing of it is cached."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.app.runs import SMALLEST, photographs, run, settings
from tinyflux_pl.app.caches.sources import open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import online_teacher
from tinyflux_pl.app.fitting.starting_point import StartingPoint
from tinyflux_pl.app.memory.planned_batch import planned_batch
from tinyflux_pl.app.memory.step_flops import flops_per_image
from tinyflux_pl.app.memory.training_memory import Planner, choose_division
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, SpecMismatch
from tinyflux_pl.engine.memory_plan import weight_bytes

SMALL = (
    *("model=tiny", *SMALLEST, "data.sources.shapes.train.count=24", "data.evaluation_prompts=2"),
    *("callbacks.preview.count=1", "callbacks.log_every_steps=1"),
    "text.width=128",  # the embedded teachers'
)
ONLINE = (*SMALL, "experts=lune", "pathway=online")
ONLINE += ("callbacks.checkpoint.every_steps=1", "callbacks.checkpoint.keep=9")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("online")


@pytest.fixture(scope="module")
def trained(root):
    run("train", root, *ONLINE, "steps=3", "run=taught")
    return root / "outputs" / "taught"


def weights(folder):
    return directory.newest_valid(folder / "checkpoints")[0].weights("raw")


def test_a_run_has_no_features_in_its_cache_and_learns_something_else(root, trained):
    store = CacheStore.open(root / "cache" / "shapes" / "train")
    assert set(store.groups()) == {"encodings"}
    run("train", root, *SMALL, "experts=none", "steps=3", "run=alone")
    taught, alone = weights(trained), weights(root / "outputs" / "alone")
    assert taught.keys() == alone.keys()
    assert any(not torch.equal(taught[name], alone[name]) for name in taught)
    header, *rows = (trained / "csv" / "metrics.csv").read_text().splitlines()
    share = header.split(",").index("train/velocity_share")
    shares = [float(row.split(",")[share]) for row in rows if row.split(",")[share]]
    assert shares and all(0.5 < value <= 1 for value in shares)


def test_resumption_reproduces_the_weights_exactly(root, trained):
    origin = trained / "checkpoints" / "step_0000001"
    run("train", root, *ONLINE, "steps=3", "run=resumed", f"resume='{origin}'")
    one, other = weights(trained), weights(root / "outputs" / "resumed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_teaches_a_smaller_one_in_the_step(root, trained):
    lines = ("experts=denoiser", "teacher=checkpoint", f"teacher.checkpoint='{trained}'")
    run("train", root, *ONLINE, *lines, "model.num_single_layers=0", "steps=1", "run=smaller")
    assert directory.newest_valid(root / "outputs/smaller/checkpoints")[0].step == 1


def test_the_weights_of_a_teacher_are_read_once_and_only_when_it_teaches(
    root, trained, monkeypatch
):
    read, real = [], directory.Checkpoint.weights
    teacher = directory.newest_valid(trained / "checkpoints")[0].path

    def weights(self, which="averaged"):
        read.append(self.path)
        return real(self, which)

    monkeypatch.setattr(directory.Checkpoint, "weights", weights)
    lines = ("experts=denoiser", "teacher=checkpoint", f"teacher.checkpoint='{trained}'")
    config = settings("train", root, *ONLINE, *lines, "hardware.memory_gb=8")
    Parts.from_config(config).check()
    choose_division(config)
    assert not read
    words = (*ONLINE, *lines, "hardware.memory_gb=8", "preflight=true", "steps=1", "run=once")
    run("train", root, *words)
    assert [path for path in read if path == teacher] == [teacher]


def test_damaged_weights_of_a_teacher_are_refused_before_anything_is_cached(
    root, trained, tmp_path, monkeypatch
):
    real = directory.Checkpoint.weights

    def damaged(self, which="averaged"):
        weights = real(self, which)
        next(iter(weights.values())).view(-1)[0] = float("nan")
        return weights

    monkeypatch.setattr(directory.Checkpoint, "weights", damaged)
    lines = ("experts=denoiser", "teacher=checkpoint", f"teacher.checkpoint='{trained}'")
    lines += ("pathway.online.probability=0.01", "preflight=false", "steps=1", "run=damaged")
    with pytest.raises(CorruptCheckpoint, match="is not finite"):
        run("train", tmp_path, *ONLINE, *lines)
    assert not list(tmp_path.rglob("shard_*"))


def test_the_flops_of_a_step_leave_the_weights_of_its_teacher_where_they_are(root, trained):
    parts = Parts.from_config(settings("train", root, *ONLINE))
    targets = parts.student_objective(parts.text.null()).velocity_targets
    with targets.teacher_on(torch.device("cpu")) as teacher:
        batch = planned_batch(parts, teacher, 2)
        batch = replace(batch, sample_ids=torch.arange(2), dataset_ids=torch.zeros(2).long())
    assert flops_per_image(parts, SimpleNamespace(first_batch=lambda: batch)) > 0
    assert not any(parameter.is_meta for parameter in teacher.parameters())


def test_the_memory_plan_counts_the_teacher(root):
    config = settings("train", root, *ONLINE)
    teacher = Parts.from_config(config).online_teacher
    stages = {stage.name: stage.rows for stage in Planner(config).plan().memory.stages}
    assert stages["step"]["teacher"] == weight_bytes(teacher.network) > 0


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        (("experts=lune_sol",), "experts", "one teacher in the step"),
        (("text.width=16",), "text", "other settings or another encoder"),
        (("pathway.online.weight=0",), "pathway.online.weight", "weight is 0"),
        (("teacher.seed=1",), "teacher.seed", "does not read"),
        (("+data.sources.shapes.experts=[]",), "experts.lune", "no source has"),
        (("pathway.ports=true",), "pathway.online", "and cached ones"),
    ],
)
def test_unsupported_settings_are_refused_before_anything_is_cached(tmp_path, lines, where, says):
    with pytest.raises(ConfigError, match=says) as caught:
        run("train", tmp_path, *ONLINE, *lines)
    assert caught.value.where == where and caught.value.cure
    assert not list(tmp_path.rglob("shard_*"))


def test_a_student_in_other_latents_is_refused(tmp_path):
    with pytest.raises(SpecMismatch, match="channels is 12, expected 48"):
        run("train", tmp_path, *ONLINE, "codec.fold=4", "model.patch_size=1", "run=other")


def test_the_base_teaches_an_adapter_on_the_prior_pictures_alone(root, trained):
    """data=folder_prior: the new pictures are the data's, all others the base's."""
    names = ("astronaut", "chelsea", "coffee")
    new, prior = (photographs(root / name, names[k:]) for k, name in enumerate(("new", "prior")))
    data = ("data=folder_prior", f"data.root={new}", f"data.prior_root={prior}")
    data += ("data.validation_fraction=0.4", "data.evaluation_prompts=0", "data.image_size=32")
    base = ("experts=denoiser", "pathway=online", "teacher=checkpoint", f"init={trained}")
    base += (f"teacher.checkpoint={trained}", "method=lora", "model=tiny", *SMALLEST)
    data += ("data.captions.trigger=zorp",)
    lines = (*base, *data, "text.width=128", "callbacks.preview.count=1", "steps=1", "run=kept")
    targets = Parts.from_config(settings("train", root, *lines)).student_objective(None)
    assert targets.velocity_targets.sources.tolist() == [1]
    run("train", root, *lines)
    for source in open_sources(Parts.from_config(settings("train", root, *lines))):
        captions = [caption for _, caption in source.train.records.captions()]
        assert captions and all(("zorp" in c) == (source.name == "folder") for c in captions)
        assert set(source.train.store.groups()) == {"encodings"}


def taught_adapter(root, trained, *words, step=3):
    """Parts of an adapter of `trained`, taught by a checkpoint of that run; and the network."""
    teacher = trained / "checkpoints" / f"step_{step:07d}"
    lines = ("experts=denoiser", "teacher=checkpoint", f"teacher.checkpoint='{teacher}'")
    lines += ("method=lora", f"init='{trained}'", "method.dropout=0.5", *words)
    parts = Parts.from_config(settings("train", root, *ONLINE, *lines))
    network = parts.student(StartingPoint(parts.config, parts.method))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return parts, network.train()


def test_the_base_of_an_adapter_is_in_memory_once_and_teaches_as_its_copy_would(
    root, trained, monkeypatch
):
    parts, network = taught_adapter(root, trained, "method.base_precision=null")
    assert online_teacher.resident_bytes(parts) == 0
    batch = planned_batch(parts, network, 4)
    batch = replace(batch, latents=torch.randn(batch.latents.shape), dataset_ids=batch.sample_ids)
    null = parts.text.null()

    def taught():
        objective = parts.student_objective(null)
        objective.velocity_targets.sources = torch.tensor([0, 2, 3])
        return objective.draw(network, batch, 0).teacher

    shared = taught()
    assert network.training and parts.online_teacher.read is not None  # its weights are unread
    monkeypatch.setattr(online_teacher, "shared_teacher_base", lambda parts: None)
    separate = taught()
    assert parts.online_teacher.read is None
    assert shared.used.sum() > 1 and shared.velocity.any()
    assert torch.equal(shared.velocity, separate.velocity) and torch.equal(
        shared.used, separate.used
    )
    assert online_teacher.resident_bytes(parts) == weight_bytes(parts.online_teacher.network)


def test_the_plan_of_a_base_that_teaches_its_own_adapter_has_no_teacher(root, trained):
    lines = ("experts=denoiser", "teacher=checkpoint", f"teacher.checkpoint='{trained}'")
    lines += ("method=lora", f"init='{trained}'", "method.base_precision=null")
    stages = Planner(settings("train", root, *ONLINE, *lines)).plan().memory.stages
    assert not any("teacher" in stage.rows for stage in stages)


@pytest.mark.parametrize(
    ("words", "step"), [(("method.base_precision=int8",), 3), (("method.base_precision=null",), 2)]
)
def test_a_packed_base_and_other_weights_are_another_network_than_the_teacher(
    root, trained, words, step
):
    parts, _ = taught_adapter(root, trained, *words, step=step)
    assert (
        online_teacher.shared_teacher_base(parts) is None
        and online_teacher.resident_bytes(parts) > 0
    )
