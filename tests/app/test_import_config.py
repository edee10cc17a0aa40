"""Old YAML with `_base_` becomes an experiment that composes; every key is reported."""

import shutil

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.app.runs import CONF
from tinyflux_pl.app.import_config import import_config, main
from tinyflux_pl.config.inherited_yaml import MAX_FILES, read_inherited
from tinyflux_pl.core.errors import ConfigError

BASES = {
    "models/flux.yaml": "model: {type: flux, dtype: float32}\nlearnig_rate: 3\n",
    "training/lora.yaml": """
training:
  method: lora
  optimizer: {type: adamw, lr: 1.0e-5}
  lora: {rank: 32, alpha: 16, target_modules: [to_q, to_k], train_text_encoder: false}
""",
    "experiments/mine.yaml": """
_base_: [../models/flux.yaml, ../training/lora.yaml]
experiment: {name: character, seed: 42}
model: {dtype: bfloat16}
training: {epochs: 50, batch_size: 2, gradient_accumulation: 4, learning_rate: 1.0e-4}
data: {train_path: /photos, resolution: 1024, bucket_resolution_steps: 64, cache_latents: true}
hardware: {mixed_precision: bf16}
""",
}


@pytest.fixture
def old(tmp_path):
    for name, text in BASES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "experiments" / "mine.yaml"


def test_an_imported_experiment_composes_with_the_old_settings(old, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    target = tmp_path / "conf" / "experiment" / "mine.yaml"
    report = import_config(old, target)
    shutil.copytree(CONF, tmp_path / "all")
    shutil.copy(target, tmp_path / "all" / "experiment")
    with initialize_config_dir(str(tmp_path / "all"), version_base=None):
        config = compose("train", ["experiment=mine"])
    for key, value in {
        "run": "character",
        "seed": 42,
        "model.dtype": "bfloat16",
        "optimizer.lr": 1e-4,
        "hardware.batch_size": 8,
        "hardware.accumulation": 4,
        "hardware.precision": "bf16-mixed",
        "method.rank": 32,
        "method.alpha": 16,
        "method.targets": ["to_q", "to_k"],
        "data.root": "/photos",
        "data.image_size": 1024,
        "data.buckets.enabled": True,
        "data.buckets.step": 64,
    }.items():
        assert OmegaConf.select(config, key) == value, key
    for old_key in (
        "learnig_rate",
        "training.epochs",
        "training.optimizer.lr",
        "training.lora.train_text_encoder",
        "data.cache_latents",
    ):
        assert any(line.startswith(f"dropped {old_key}: ") for line in report), old_key
    text = target.read_text()
    assert all(f"# {line}" in text for line in report[:-1])
    with pytest.raises(ConfigError, match="it exists"):
        import_config(old, target)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("model: {name: big}", "dropped model.name: big (nothing here reads it)"),
        ("validation: {lr: 1}", "dropped validation.lr: 1 (nothing here reads it)"),
        ("training: {lr: 1}", "dropped training.lr: 1 (did you mean optimizer.lr?)"),
        (
            "optimizer: {learning_rate: 1}",
            "dropped optimizer.learning_rate: 1 (did you mean optimizer.lr?)",
        ),
        ("lr: 1", "dropped lr: 1 (did you mean optimizer.lr?)"),
    ],
)
def test_an_unknown_key_is_advised_within_its_section(old, tmp_path, change, line):
    (old.parent / "child.yaml").write_text(f"_base_: mine.yaml\n{change}\n")
    assert line in import_config(old.parent / "child.yaml", tmp_path / "new.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model: {type: pixart}", "no model 'pixart'"),
        ("training: {method: hypernetwork}", "no method 'hypernetwork'"),
        ("training: {batch_size: many}", "batch_size"),
        ("training: {lora: {rank: many}}", "rank"),
    ],
)
def test_settings_that_train_refuses_write_nothing(old, tmp_path, change, message):
    (old.parent / "child.yaml").write_text(f"_base_: mine.yaml\n{change}\n")
    target = tmp_path / "new.yaml"
    with pytest.raises(ConfigError, match=message):
        import_config(old.parent / "child.yaml", target)
    assert not target.exists()


def test_circles_of_bases_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("_base_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_base_: [sub/c.yaml]\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("_base_: ../a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        read_inherited(tmp_path / "a.yaml")


def test_a_base_may_be_named_twice_and_the_child_wins(tmp_path):
    (tmp_path / "root.yaml").write_text("a: {x: 1, y: [1, 2]}\nb: 1\n")
    (tmp_path / "left.yaml").write_text("_base_: root.yaml\na: {x: 2}\n")
    (tmp_path / "right.yaml").write_text("_base_: root.yaml\nb: 5\n")
    (tmp_path / "child.yaml").write_text("_base_: [left.yaml, right.yaml]\na: {y: [3]}\n")
    assert read_inherited(tmp_path / "child.yaml") == {"a": {"x": 1, "y": [3]}, "b": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_: /etc/passwd\n", "names '/etc/passwd'"),
        ("_base_: 3\n", "_base_"),
        ("_base_: gone.yaml\n", "no such file"),
        ("- a\n", "not a mapping"),
        ("a: [\n", "not YAML"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_inherited(tmp_path / "a.yaml")


def test_a_tree_of_bases_is_bounded(tmp_path):
    for k in range(8):
        (tmp_path / f"{k}.yaml").write_text(f"_base_: [{k + 1}.yaml, {k + 1}.yaml]\n")
    (tmp_path / "8.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=f"more than {MAX_FILES} files"):
        read_inherited(tmp_path / "0.yaml")


def test_the_last_line_is_a_command_that_reads_the_experiment(old, tmp_path, monkeypatch):
    elsewhere = import_config(old, tmp_path / "mine.yaml")[-1]
    assert elsewhere.endswith(
        "; use: move it into conf/experiment, then python train.py experiment=mine"
    )
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr("tinyflux_pl.app.import_config.CONF", tmp_path / "conf")
    inside = import_config(old, tmp_path / "conf" / "experiment" / "mine.yaml")[-1]
    assert inside.endswith("; use: python train.py experiment=mine")


def test_the_command_reports_errors_in_three_lines(tmp_path, capsys):
    assert main([str(tmp_path / "gone.yaml"), str(tmp_path / "new.yaml")]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "no such file"
