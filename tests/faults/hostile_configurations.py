"""Downloaded configuration folders that make Hydra itself run, import or overwrite something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPAWNS = "{x: {'()': os.system, command: 'touch MARKER'}}"
SWEPT = {"mode": "MULTIRUN"}  # in the file: no flag is needed


def _swept(**params: Any) -> dict[str, Any]:
    """An experiment whose sweep applies these overrides after the command line was read."""
    return {
        "hydra": {**SWEPT, "sweeper": {"params": {key: value for key, value in params.items()}}}
    }


def _logged(**sections: Any) -> dict[str, Any]:
    return {"hydra": {"job_logging": sections}}


# name -> content of conf/experiment/evil.yaml; VICTIM is a file that has to stay as it is
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "a filter of a sweep": _swept(**{"+hydra.job_logging.filters": SPAWNS}),
    "an environment of a sweep": _swept(
        **{"+hydra.job.env_set.TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    ),
    "a working folder of a sweep": _swept(**{"hydra.job.chdir": "true"}),
    "a search path of a sweep": _swept(**{"hydra.searchpath": r"[pkg\://evil_module]"}),
    "a target of a sweep": _swept(**{"model._target_": "os.system"}),
    "a callback of a sweep": _swept(
        **{"+hydra.callbacks.x": "{_target_: os.system, command: 'touch MARKER'}"}
    ),
    "a folder of a sweep": _swept(**{"hydra.output_subdir": "'../../../victim'"}),
    "a log of a sweep": _swept(**{"hydra.job.name": "../../x"}),
    "an environment that is copied": {"hydra": {"job": {"env_copy": ["HOME"]}}},
    "an environment by reference": {"env": {"A": "1"}, "hydra": {"job": {"env_set": "${env}"}}},
    "a working folder by reference": {"b": True, "hydra": {"job": {"chdir": "${b}"}}},
    "a formatter that is a file": _logged(
        formatters={
            "x": {
                "class": "logging.FileHandler",
                "format": "VICTIM",
                "datefmt": "w",
                "style": "utf-8",
            }
        }
    ),
    "a formatter made by a factory": _logged(
        formatters={"x": {"()": "logging.FileHandler", "filename": "VICTIM", "mode": "w"}}
    ),
    "a filter": _logged(filters={"x": {"()": "os.system", "command": "touch MARKER"}}),
    "a log that replaces": _logged(
        handlers={"file": {"filename": "${hydra.runtime.output_dir}/../../victim.log", "mode": "w"}}
    ),
    "a log elsewhere": _logged(handlers={"file": {"filename": "VICTIM.log"}}),
    "a log by reference": _logged(
        handlers={"file": {"filename": "cfg://formatters.log"}}, formatters={"log": "VICTIM"}
    ),
    "an attribute": _logged(handlers={"file": {".": {"baseFilename": "VICTIM"}, "delay": True}}),
    "a format that walks": _logged(
        formatters={
            "simple": {"style": "{", "format": "{exc_info[2].tb_frame.f_globals[os].environ}"}
        }
    ),
    "a class by the environment": _logged(handlers={"x": {"class": "${oc.env:EVIL}"}}),
    "a class decoded": _logged(handlers={"x": '${oc.decode:"{class: evil_module.CLASS}"}'}),
    "a launcher's line": {"hydra": {"launcher": {"name": "x\ntouch MARKER"}}},
    "a launcher's command by reference": {"c": None, "hydra": {"launcher": {"setup": "${c}"}}},
    "a launcher's options": {
        "hydra": {"launcher": {"additional_parameters": {"wrap": "touch MARKER"}}}
    },
    "a target in the house": {
        "hydra": {"callbacks": {"x": {"_target_": "tinyflux_pl.diffusion.paths.LinearPath"}}}
    },
    "a folder of hydra's": {"hydra": {"output_subdir": "../../victim"}},
}
# name -> files of a configuration folder; the experiment chooses them by its defaults list, or its
# package
FOLDERS: dict[str, Mapping[str, str]] = {
    "by a defaults list": {
        "experiment/evil.yaml": "# @package _global_\ndefaults: [{override /hydra/job_logging: "
        "evil}]\n",
        "hydra/job_logging/evil.yaml": f"version: 1\nfilters: {SPAWNS}\nroot: {{level: INFO}}\n",
    },
    "by a package": {
        "experiment/evil.yaml": f"# @package hydra.job_logging.filters\n{SPAWNS[1:-1]}\n"
    },
    "by a package of a choice": {
        "experiment/evil.yaml": "# @package _global_\ndefaults: [{/evil@hydra.job_logging: "
        "filters}]\n",
        "evil/filters.yaml": f"filters: {SPAWNS}\n",
    },
    "by a choice that is typed": {
        "hydra/hydra_logging/evil.yaml": f"version: 1\nfilters: {SPAWNS}\nroot: {{level: INFO}}\n"
    },
}
