"""pathway=ports|velocity|both|none: what is cached, trained, kept in checkpoints, and refused."""

import pytest
import torch

from tests.app.runs import SMALLEST, configuration, run, settings
from tinyflux_pl.app.caches.sources import datasets, open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import cache_needs
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config import schema
from tinyflux_pl.config.diff import ANOTHER_RUN, NOTHING, changes
from tinyflux_pl.core.errors import ConfigError, SpecMismatch

SMALL = (
    "model=tiny",
    *SMALLEST,
    "data.sources.shapes.train.count=24",
    "data.evaluation_prompts=2",
    "callbacks.preview.count=1",
    "callbacks.log_every_steps=1",
)
VELOCITY = (*SMALL, "experts=lune_sol", "pathway=velocity", "pathway.velocity.ramp_steps=2")
VELOCITY += ("pathway.velocity.t_buckets=[0.05,0.3,0.7]",)

OFTEN = ("callbacks.validation.every_steps=2", "callbacks.checkpoint.every_steps=1")
OFTEN += ("callbacks.checkpoint.keep=9",)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pathways")


@pytest.fixture(scope="module")
def trained(root):
    """The folder of a run of six steps that validates after each second one."""
    run("train", root, *VELOCITY, *OFTEN, "steps=6", "run=all")
    return root / "outputs" / "all"


def rows_of(folder):
    header, *rows = (folder / "csv" / "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]


def test_velocities_are_cached_for_both_splits_and_features_for_none(root, trained):
    stores = {s: CacheStore.open(root / "cache" / "shapes" / s) for s in ("train", "validation")}
    for store in stores.values():
        assert set(store.groups()) == {"encodings", "lune_velocity", "sol_velocity"}
        assert store.gather("sol_velocity.velocity", [0]).shape == (1, 3, 12, 16, 16)
    assert stores["train"].groups()["lune_velocity"]["teacher"]["teacher"] == "lune"


def test_the_network_has_no_ports_and_draws_as_any_other(root, trained):
    checkpoint, _ = directory.newest_valid(trained / "checkpoints")
    config = checkpoint.config["denoiser"]["config"]["config"]
    assert not config.get("ports") and not any("lune" in k for k in checkpoint.weights("raw"))
    assert checkpoint.config["experts"] == ["lune", "sol"]
    run("generate", root, f"checkpoint='{trained}'", "prompt='a red circle'", "n=1", "seed=1")


def test_shares_weights_and_open_times_are_logged(trained):
    rows = rows_of(trained)
    shares = [float(row["train/velocity_share"]) for row in rows if row["train/velocity_share"]]
    weights = [float(row["train/velocity_weight"]) for row in rows if row["train/velocity_weight"]]
    assert 0.5 < sum(shares) / len(shares) <= 1
    assert weights == [0, 0.5, 1, 1, 1, 1]
    assert {row["train/velocity_open_t_0.3"] for row in rows} <= {"", "1.0"}
    assert not any(name.startswith("train/lune") for name in rows[0])


@pytest.mark.parametrize("step", [3, 4], ids=["after a validation", "at a validation"])
def test_resumption_reproduces_weights_and_gate_exactly(root, trained, step):
    origin = trained / "checkpoints" / f"step_{step:07d}"
    state = directory.read(origin).state()["callbacks"]["TeacherGate"]
    assert len(state["errors"]) == 2 and len(state["student"]) == 3
    run("train", root, *VELOCITY, *OFTEN, "steps=6", f"run=from{step}", f"resume='{origin}'")
    end = directory.read(root / "outputs" / f"from{step}" / "checkpoints" / "step_0000006")
    expected = directory.read(trained / "checkpoints" / "step_0000006")
    for which in ("raw", "averaged"):
        one, other = end.weights(which), expected.weights(which)
        assert all(torch.equal(one[name], other[name]) for name in other)
    gates = [each.state()["callbacks"]["TeacherGate"] for each in (end, expected)]
    assert gates[0] == gates[1]


@pytest.mark.parametrize(
    ("int8", "size"), [("false", 2 * 12 * 16 * 16), ("true", 12 * 16 * 16 + 2)]
)
def test_the_plan_counts_the_rows_and_bytes_of_velocities(root, int8, size):
    lines = ("data.sources.shapes.cache=elsewhere", f"pathway.velocity.int8={int8}")
    parts = Parts.from_config(settings("train", root, *VELOCITY, *lines))
    sources = open_sources(parts)
    needs = [n for source in sources for c in source.caches.values() for n in cache_needs.needs(c)]
    counted = {(n.split, n.group): n.rows for n in needs}
    assert counted["train", "lune_velocity"] == 24 and counted["validation", "sol_velocity"] == 8
    (sampled,) = cache_needs.sampled(parts, sources)
    assert sampled.train.store.row_bytes["lune_velocity"] == 3 * size


def test_int8_levels_are_cached_and_trained_on(root, trained):
    folder = root / "levels"
    run("train", folder, *VELOCITY, "pathway.velocity.int8=true", "steps=2", "run=levels")
    exact, levels = (
        CacheStore.open(parent / "cache" / "shapes" / "train") for parent in (root, folder)
    )
    stored = levels.gather("lune_velocity.velocity", range(4))
    assert stored.dtype == torch.int8
    scale = levels.gather("lune_velocity.velocity_scale", range(4))[..., None, None, None]
    expected = exact.gather("lune_velocity.velocity", range(4)).float()
    torch.testing.assert_close(stored.float() * scale.float(), expected, atol=0.03, rtol=0)


def test_batches_of_validation_carry_no_velocities(root, trained):
    parts = Parts.from_config(settings("train", root, *VELOCITY))
    train, validation = datasets(open_sources(parts), in_memory=False)
    assert set(train[0].experts) == {"lune_velocity.velocity", "sol_velocity.velocity"}
    assert validation[0].experts == {}


def test_both_pathways_train_together_and_none_trains_like_no_experts(root):
    run("train", root, *VELOCITY, "pathway=both", "steps=2", "run=both")
    names = rows_of(root / "outputs" / "both")[0]
    assert {"train/lune", "train/sol", "train/velocity_share"} <= set(names)
    run("train", root, *SMALL, "experts=lune_sol", "pathway=none", "steps=2", "run=none")
    run("train", root, *SMALL, "experts=none", "steps=2", "run=without")
    ends = [
        directory.newest_valid(root / "outputs" / r / "checkpoints")[0] for r in ("none", "without")
    ]
    one, other = (end.weights("raw") for end in ends)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        (("pathway.velocity.probability=0",), "pathway.velocity.probability", "probability is 0"),
        (("pathway.velocity.weight=1.5",), "pathway.velocity.weight", "weight is 1.5"),
        (("pathway.velocity.ramp_steps=-1",), "pathway.velocity.ramp_steps", "ramp_steps is -1"),
        (("pathway.velocity.t_buckets=[0.5,0.1]",), "pathway.velocity.t_buckets", "t_buckets are"),
        (("pathway.velocity.t_buckets=[0.5,1.0]",), "pathway.velocity.t_buckets", "t_buckets is"),
        (("pathway=both", "experts.lune.clock=literal"), "experts.lune.clock", "clock=literal"),
        (("experts.lune.weight=1",), "experts.lune.weight", "does not read"),
        (("pathway=both", "experts=denoiser"), "experts.denoiser", "no features for ports"),
        (
            ("callbacks.validation.every_steps=0",),
            "callbacks.validation.every_steps",
            "nothing measures it",
        ),
    ],
)
def test_wrong_values_are_refused_before_anything_is_read(root, lines, where, says):
    with pytest.raises(ConfigError, match=says) as caught:
        Parts.from_config(settings("train", root, *VELOCITY, *lines)).check()
    assert caught.value.where == where and caught.value.cure


def test_a_student_of_another_codec_is_refused_before_anything_is_encoded(tmp_path):
    with pytest.raises(SpecMismatch, match="channels is 12, expected 48"):
        run("train", tmp_path, *VELOCITY, "codec.fold=4", "model.patch_size=1", "run=other")
    assert not list(tmp_path.rglob("shard_*"))


def test_a_run_from_before_there_was_a_pathway_resumes_and_gates_bind_validation(tmp_path):
    now = configuration("train", tmp_path, *SMALL, "experts=lune")
    then = {key: value for key, value in now.items() if key != "pathway"}
    assert changes(then, now, 1) == []
    gated = configuration("train", tmp_path, *VELOCITY)
    for config, effect in ((now, NOTHING), (gated, ANOTHER_RUN)):
        callbacks = {**config["callbacks"]}
        callbacks["validation"] = {**callbacks["validation"], "every_steps": 7}
        (change,) = changes(config, {**config, "callbacks": callbacks}, 1)
        assert change.effect == effect


def test_the_schema_reads_every_choice(tmp_path):
    for choice in ("ports", "velocity", "both", "online", "none"):
        config = configuration("extract", tmp_path, f"pathway={choice}")
        typed = schema.read(config, "extract").pathway
        assert (typed.ports, typed.velocity is not None) == (
            choice in ("ports", "both"),
            choice in ("velocity", "both"),
        )


def test_a_run_teaches_a_smaller_one(root, trained):
    """Any denoiser is a teacher of velocities: TinyFlux teaches TinyFlux."""
    taught = (*SMALL, "experts=denoiser", "pathway=velocity", "teacher=checkpoint", "steps=2")
    smaller = ("model.num_single_layers=0", "run=smaller", f"teacher.checkpoint='{trained}'")
    run("train", root, *taught, *smaller)
    store = CacheStore.open(root / "cache" / "shapes" / "train")
    teacher = store.groups()["denoiser_velocity"]["teacher"]
    assert teacher["teacher"] == "denoiser" and teacher["weights"].endswith("averaged")
    shares = [row["train/velocity_share"] for row in rows_of(root / "outputs" / "smaller")]
    assert max(float(share) for share in shares if share) > 0.5


@pytest.mark.parametrize(
    ("lines", "cure"),
    [
        (("experts=denoiser",), "teacher=checkpoint"),
        (("experts=lune", "teacher=checkpoint", "teacher.checkpoint=x"), "teacher=NAME"),
    ],
)
def test_an_expert_without_a_teacher_says_how_to_give_it_one(root, lines, cure):
    parts = Parts.from_config(settings("train", root, *SMALL, "pathway=velocity", *lines))
    (target,) = parts.targets.values()
    with pytest.raises(ConfigError, match="has no teacher") as caught:
        parts.teacher(target.name)
    assert cure in caught.value.cure
