"""One thread and no network, set before torch is imported; subprocesses import this tree."""

import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # more threads than cores make every test several times slower
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", WANDB_MODE="offline", HF_HUB_DISABLE_TELEMETRY="1"
)

# A script that is started from elsewhere would import what is installed: perhaps another checkout.
TREE = str(Path(__file__).resolve().parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([TREE, *filter(None, [os.environ.get("PYTHONPATH")])])

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _private_global_generator() -> None:
    """No test inherits the generator's state from another, whatever the order or the worker."""
    torch.manual_seed(0)
