"""Nothing that a command line or a file names reaches Hydra as a target unjudged."""

import pytest

from tests.app.cli.test_command_line import refused

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
def test_a_class_that_is_allowed_is_still_refused_by_interpolation(conf, attack):
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{attack}\n")
    error = refused(conf, "experiment=evil")
    assert "an interpolation may not name what Hydra builds" in error.what, str(error)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_target_of_the_line_reaches_hydra_unjudged(conf, attack):
    error = refused(conf, attack)
    assert "may not" in error.what or "allowlist" in error.what, str(error)


@pytest.mark.parametrize("attack", IN_A_FILE.values(), ids=IN_A_FILE)
def test_no_target_of_a_file_reaches_hydra_unjudged(conf, attack):
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{attack}\n")
    error = refused(conf, "experiment=evil")
    assert "may not" in error.what or "allowlist" in error.what, str(error)
