"""No line of the house can open a pickle, run text as code, or fetch code: read from the source, so
none is missed.
"""

import ast

import pytest

from tests.house.source import PACKAGE, ROOT, name

OPENERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
MUST = {"torch.load": ("weights_only", True), "from_pretrained": ("local_files_only", True)}
NEVER = {"allow_pickle": True, "trust_remote_code": True, "use_safetensors": False, "shell": True}
FILES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def faults(source: str) -> list[str]:
    """What a file does that nothing here may do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            found += [
                f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in OPENERS
            ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        found += [f"{node.lineno}: {called} runs text"] if called in RUNNERS else []
        found += [
            f"{node.lineno}: {key}={value}"
            for key, value in given.items()
            if NEVER.get(key, not value) is value
        ]
        for end, (key, value) in MUST.items():
            if (called == end or called.endswith(f".{end}")) and given.get(key) is not value:
                found.append(f"{node.lineno}: {called} without {key}={value}")
    return found


def test_no_file_opens_a_pickle_or_runs_text():
    assert not [
        f"{name(file)}:{fault}"
        for file in FILES
        for fault in faults(file.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from joblib import load",
            "exec(x)",
            "torch.load(f)",
            "torch.load(f, weights_only=False)",
        ),
        *("np.load(f, allow_pickle=True)", "m.from_pretrained(f)", "run(x, shell=True)"),
        "AutoTokenizer.from_pretrained(f, local_files_only=True, trust_remote_code=True)",
    ],
)
def test_it_would_be_seen(line):
    assert faults(line)
    assert not faults("model.compile()\ntorch.load(f, weights_only=True, mmap=True)")
