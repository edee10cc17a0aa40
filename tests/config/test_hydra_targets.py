"""Nothing that a command line or a file names reaches Hydra as a target unjudged."""

import pytest

from tests.app.cli.test_command_line import refused
from tinyflux_pl.app.cli.check_line import CONF, check_line
from tinyflux_pl.core.errors import ConfigError

ATTACKS = {
    "callback": "+hydra.callbacks.x={_target_: os.system, command: touch owned}",
    "callback key": "+hydra.callbacks.x._target_=builtins.exec",
    "nested": "+hydra.callbacks.x={_target_: tinyflux_pl.diffusion.paths.LinearPath, y: {_target_: "
    "os.system}}",
    "list": "+hydra.callbacks.x=[{_target_: os.system}]",
    "decoded": "+hydra.callbacks.x='${oc.decode:\"{_target_: os.system}\"}'",
    "launcher": "hydra.launcher._target_=os.system",
    "sweeper": "hydra.sweeper._target_=os.system",
    "alias": "+hydra.callbacks.x._target_=tinyflux_pl.core.files.os.system",
    "handler": "hydra.job_logging.handlers.console.class=logging.handlers.SocketHandler",
    # with a format that is a command
    "file": "hydra.job_logging.handlers.file.filename=/etc/profile.d/x.sh",
    "import": "hydra.job_logging.handlers.console.stream=ext://os.system",
    "search space": "+hydra.sweeper.custom_search_space=os.system",  # Optuna's imports and calls it
    "commands": "+hydra.launcher.setup=[touch owned]",  # Slurm's runs them
    "arguments": "+hydra.launcher.srun_args=['--task-prolog=owned']",
    "interpreter": "+hydra.launcher.python=./owned",
    "working folder": "hydra.job.chdir=true",  # relative paths would mean other files in every run
    "job": "+evil={_target_: os.system}",
    "job nested": "+evil={a: [{b: {_target_: torch.hub.load}}]}",
    "job target": "model._target_=subprocess.Popen",
}
IN_A_FILE = {
    "callback": "hydra: {callbacks: {x: {_target_: os.system, command: ls}}}",
    "partial": "hydra: {callbacks: {x: {_partial_: true, _target_: os.system}}}",
    "yaml alias": "a: &evil {_target_: os.system}\nhydra: {callbacks: {x: *evil}}",
    "created": "evil: {x: '${oc.create:{_target_: os.system}}'}\nhydra: {callbacks: '${evil}'}",
    "selected": "hydra: {callbacks: {x: '${oc.select:nothing,{_target_:os.system}}'}}",
    # null until Hydra numbers the jobs: the default is a target, though it is none at a later look
    "before the job": "hydra: {callbacks: {x: '${oc.select:hydra.job.num,{_target_:os.system}}'}}",
    "name by parts": "a: os\nhydra: {callbacks: {x: {_target_: '${a}.system'}}}",
    "factory": "hydra: {job_logging: {handlers: {x: {'()': os.system, command: ls}}}}",
    "factory by parts": "a: os\nhydra: {hydra_logging: {formatters: {x: {'()': '${a}.system'}}}}",
    "job": "evil: [{_target_: os.system}]",
}


BY_ALIAS = {  # what it resolves to is allowed now, and could be anything in the next job of a sweep
    "handler": "hydra: {job: {name: logging.NullHandler}, job_logging: {handlers: {x: {class: "
    "'${hydra.job.name}'}}}}",
    "factory": "hydra: {job: {name: logging.Formatter}, job_logging: {formatters: {x: {'()': "
    "'${hydra.job.name}'}}}}",
    "launcher": "a: hydra._internal.core_plugins.basic_launcher.BasicLauncher\nhydra: {launcher: "
    "{_target_: '${a}'}}",
}


@pytest.mark.parametrize("attack", BY_ALIAS.values(), ids=BY_ALIAS)
def test_an_allowed_class_is_refused_by_interpolation(conf, attack):
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{attack}\n")
    error = refused(conf, "experiment=evil")
    assert "an interpolation may not name what Hydra builds" in error.what, str(error)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_targets_on_the_command_line_are_checked_before_hydra(conf, attack):
    error = refused(conf, attack)
    assert "may not" in error.what or "allowlist" in error.what, str(error)


@pytest.mark.parametrize("attack", IN_A_FILE.values(), ids=IN_A_FILE)
def test_targets_in_files_are_checked_before_hydra(conf, attack):
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{attack}\n")
    error = refused(conf, "experiment=evil")
    assert "may not" in error.what or "allowlist" in error.what, str(error)


LAUNCHERS = {  # what joblib and submitit themselves would do with it
    "joblib's folder": ("joblib", "hydra.launcher.temp_folder=owned"),
    "joblib's backend": ("joblib", "hydra.launcher.backend=threading"),
    "joblib's arrays": ("joblib", "hydra.launcher.mmap_mode=w+"),
    "joblib's arithmetic": ("joblib", "hydra.launcher.pre_dispatch='__import__(os)'"),
    "joblib's unknown": ("joblib", "+hydra.launcher.initializer=os.system"),
    "submitit's folder": ("submitit_local", "hydra.launcher.submitit_folder=/owned"),
    "submitit's way out": (
        "submitit_local",
        "hydra.launcher.submitit_folder='${hydra.sweep.dir}/../owned'",
    ),
    "slurm's options": ("submitit_slurm", "+hydra.launcher.additional_parameters.wrap=owned"),
    "slurm's line": ("submitit_slurm", 'hydra.launcher.comment="a\nowned"'),
}


@pytest.mark.parametrize("attack", LAUNCHERS.values(), ids=LAUNCHERS)
def test_launcher_options_that_execute_or_open_files_are_refused(conf, attack):
    launcher, line = attack
    error = refused(conf, f"hydra/launcher={launcher}", line)
    assert error.where.startswith("hydra.launcher") or "launcher" in str(error), str(error)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_default_launchers_are_accepted(conf, launcher):
    numbers = {
        "joblib": "hydra.launcher.n_jobs=2",
        "submitit_slurm": "hydra.launcher.partition=gpu",
    }
    check_line([f"hydra/launcher={launcher}", numbers.get(launcher, "steps=2")], conf, "train")


@pytest.mark.parametrize(
    "words",
    [
        ("seed=0,1", "hydra.sweeper.max_batch_size=many"),
        ("hparams_search=optuna", "hydra.sweeper.max_batch_size=1"),
        ("hparams_search=optuna", "+hydra.sweeper.storage=owned"),
        ("hparams_search=optuna", "hydra.sweeper.n_trials=0"),
    ],
)
def test_sweeper_options_are_type_checked(words):
    with pytest.raises(ConfigError) as caught:
        check_line(["-m", *words], CONF, "train")
    assert words[1].lstrip("+").partition("=")[0] in str(caught.value)
