"""The command line that W&B's agent makes of conf/wandb_sweep.yaml is one that train.py takes."""

import re

import pytest
import yaml

from tests.app.sweeps.sweeps import ROOT
from tinyflux_pl.app import job_checks
from tinyflux_pl.app.cli.check_line import CONF, check_line

FILE = ROOT / "conf" / "wandb_sweep.yaml"


def agent_line(values):
    """The words that the agent would start, by its own code, for the values that W&B chose."""
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load(FILE.read_text())
    words = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    words |= {"interpreter": ["python"], "program": [sweep["program"]], "env": ["/usr/bin/env"]}
    line = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        macro = re.fullmatch(r"\$\{(\w+)\}", word)
        line += words[macro[1]] if macro else [word]
    return line


def first_and_last(parameter):
    if "values" in parameter:
        return parameter["values"][0], parameter["values"][-1]
    return parameter["min"], parameter["max"]


@pytest.mark.parametrize("end", [0, 1], ids=["first", "last"])
def test_the_command_of_a_wandb_agent_is_a_valid_train_command(end, tmp_path):
    parameters = yaml.safe_load(FILE.read_text())["parameters"]
    values = {key: first_and_last(parameter)[end] for key, parameter in parameters.items()}
    line = agent_line(values)
    assert line[:3] == ["/usr/bin/env", "python", "train.py"]
    (job,) = check_line([*line[3:], f"paths.root={tmp_path}"], CONF, "train").jobs
    assert job["optimizer"]["muon_lr"] == values["optimizer.muon_lr"]
    assert job["seed"] == values["seed"] and "wandb" in job["logger"]
    assert job["logger"]["wandb"]["mode"] == "online", "the agent's server waits for the metric"
    job_checks.CHECKS["train"](job)


def test_the_metric_of_a_wandb_sweep_is_logged(tmp_path):
    from tests.app.runs import settings
    from tinyflux_pl.app.fitting import optimized_metric

    name = yaml.safe_load(FILE.read_text())["metric"]["name"]
    optimized_metric.check(settings("train", tmp_path, f"optimized_metric={name}"))
