"""No file unpickles, evaluates text as code, or fetches code, checked in the source."""

import ast

import pytest

from tests.house.source import PACKAGE, ROOT, name

OPENERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
MUST = {"torch.load": ("weights_only", True), "from_pretrained": ("local_files_only", True)}
NEVER = {"allow_pickle": True, "trust_remote_code": True, "use_safetensors": False, "shell": True}
FILES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def faults(source: str) -> list[str]:
    """Unsafe calls of a file."""
    unsafe = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            unsafe += [
                f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in OPENERS
            ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {
            k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
        }
        unsafe += [f"{node.lineno}: {called} runs text"] if called in RUNNERS else []
        unsafe += [
            f"{node.lineno}: {key}={value}"
            for key, value in keywords.items()
            if NEVER.get(key, not value) is value
        ]
        for end, (key, value) in MUST.items():
            if (called == end or called.endswith(f".{end}")) and keywords.get(key) is not value:
                unsafe.append(f"{node.lineno}: {called} without {key}={value}")
    return unsafe


def test_no_file_unpickles_or_evaluates_text():
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
def test_unsafe_calls_are_detected(line):
    assert faults(line)
    assert not faults("model.compile()\ntorch.load(f, weights_only=True, mmap=True)")
