"""Twenty `_target_`s that would write a marker if called, and entry points of the hydra node."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Touch:
    """A pickle that runs a command when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


def targets(folder: Path, marker: Path) -> dict[str, dict[str, Any]]:
    """Name -> arguments with which it writes the marker; `_args_` are positional."""
    touch = f"touch '{marker}'"
    code = f"open({str(marker)!r}, 'w').close()"
    (folder / "evil_module.py").write_text(f"{code}\nCLASS = int\n")
    (folder / "hubconf.py").write_text(f"def evil():\n    {code}\n")
    with open(folder / "evil.pt", "wb") as file:
        pickle.dump(Touch(marker), file)
    np.save(folder / "evil.npy", np.array([Touch(marker)], dtype=object), allow_pickle=True)
    return {
        "os.system": {"command": touch},
        "os.popen": {"cmd": touch},
        "subprocess.run": {"args": ["touch", str(marker)]},
        "subprocess.Popen": {"args": ["touch", str(marker)]},
        "subprocess.check_output": {"args": ["touch", str(marker)]},
        "builtins.exec": {"_args_": [code]},
        "builtins.eval": {"_args_": [code]},
        "builtins.open": {"file": str(marker), "mode": "w"},
        "shutil.copyfile": {"src": str(folder / "evil.pt"), "dst": str(marker)},
        "pathlib.Path.touch": {"self": str(marker)},
        "runpy.run_path": {"path_name": str(folder / "evil_module.py")},
        "importlib.import_module": {"name": "evil_module"},
        "logging.FileHandler": {"filename": str(marker)},
        "numpy.load": {"file": str(folder / "evil.npy"), "allow_pickle": True},
        "torch.load": {"f": str(folder / "evil.pt"), "weights_only": False},
        "torch.save": {"obj": 1, "f": str(marker)},
        "torch.hub.load": {"repo_or_dir": str(folder), "model": "evil", "source": "local"},
        "hydra.utils.instantiate": {
            "config": {"_target_": "builtins.open", "file": str(marker), "mode": "w"}
        },
        "tinyflux_pl.diffusion.paths.torch.load": {
            "f": str(folder / "evil.pt"),
            "weights_only": False,
        },
        "tinyflux_pl.core.files.write_bytes": {"path": str(marker), "content": "x"},
    }


POSITIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "top": lambda node: {"codec": node},
    "nested": lambda node: {"codec": {"fold": {"deep": [1, {"deeper": node}]}}},
    "partial": lambda node: {"optimizer": {**node, "_partial_": True}},
    "alias": lambda node: {
        "evil": {"name": node["_target_"]},
        "codec": {**node, "_target_": "${evil.name}"},
    },
}
HYDRA: dict[str, dict[str, Any]] = {  # under the hydra node; MARKER is replaced
    "callback": {
        "callbacks": {"evil": {"_target_": "builtins.open", "file": "MARKER", "mode": "w"}}
    },
    "callback of the house": {
        "callbacks": {"evil": {"_target_": "tinyflux_pl.core.files.write_bytes"}}
    },
    "callback by alias": {
        "job": {"name": "os.system"},
        "callbacks": {"evil": {"_target_": "${hydra.job.name}"}},
    },
    "environment": {"job": {"env_set": {"HF_ENDPOINT": "https://evil.invalid"}}},
    "launcher": {"launcher": {"_target_": "subprocess.run", "args": ["touch", "MARKER"]}},
    "sweeper": {"sweeper": {"_target_": "os.system", "command": "touch MARKER"}},
    "handler": {"job_logging": {"handlers": {"evil": {"class": "evil_module.CLASS"}}}},
    "handler by alias": {
        "job": {"name": "evil_module.CLASS"},
        "job_logging": {"handlers": {"evil": {"class": "${hydra.job.name}"}}},
    },
    "handlers by alias": {
        "help": {"evil": {"x": {"class": "logging.NullHandler"}}},
        "job_logging": {"handlers": "${hydra.help.evil}"},
    },
    "factory": {"job_logging": {"filters": {"evil": {"()": "evil_module.CLASS"}}}},
    "stream": {"hydra_logging": {"handlers": {"console": {"stream": "ext://evil_module.CLASS"}}}},
    "search path": {"searchpath": ["pkg://evil_module"]},
    "search path by alias": {
        "job": {"name": "pkg://evil_module"},
        "searchpath": ["${hydra.job.name}"],
    },
}
