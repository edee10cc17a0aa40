"""Very small runs with a preflight, for tests."""

from tests.app.runs import SMALLEST, configuration, run
from tinyflux_pl.app import run as recipes

SMALL = (*SMALLEST, "data.evaluation_prompts=0", "data.shard_size=64")


def tree(root):
    return {
        p.relative_to(root): p.read_bytes() if p.is_file() else None
        for p in sorted(root.rglob("*"))
    }


def only(root, *overrides):
    """As the command line does it, Hydra's folder with its empty log included."""
    config = configuration("train", root, *SMALL, "preflight=only", *overrides)
    folder = root / "outputs" / config["run"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.log").touch()
    return recipes.train(config)


def first_run(folder):
    """A project with complete caches, and a run of two steps."""
    run("train", folder, *SMALL, "run=first", "steps=2", "preflight=true")
    return folder
