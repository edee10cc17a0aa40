"""Imports run downward, heavy packages are imported late, each framework has one importer."""

import ast
import textwrap

import pytest

from tests.house import source

FLOORS = {
    "core": 0,
    **dict.fromkeys(("diffusion", "statistics"), 1),
    **dict.fromkeys(("nets", "weights", "cache"), 2),
    **dict.fromkeys(("codecs", "text", "denoisers"), 3),
    **dict.fromkeys(("data", "sampling", "engine", "checkpoints", "techniques"), 4),
    **dict.fromkeys(("experts", "methods", "objectives"), 5),
    **dict.fromkeys(("extraction", "training", "inference", "config"), 6),
    "report": 7,
    **dict.fromkeys(("app", "dashboards"), 8),
}
LAZY = (
    "diffusers",
    "transformers",
    "peft",
    "torchao",
    "sklearn",
    "skimage",
    "bitsandbytes",
    "gguf",
    "pyarrow",
    "wandb",
    "wandb_workspaces",
)
# modules that subclass a heavy package's classes: imported inside functions like the package
SUBCLASSES = ("tinyflux_pl.text.projected_t5",)
PRETRAINED = ("diffusers", "transformers", "peft", "torchao")


def allowed(importer: str, imported: str) -> bool:
    """True if a file of one package may import from another."""
    if importer == imported:
        return True
    if FLOORS[importer] == FLOORS[imported]:
        return imported == "objectives" and importer in ("experts", "methods")
    return FLOORS[imported] < FLOORS[importer]


def project_imports(file):
    for module, line, _ in source.imports(file):
        if module.startswith("tinyflux_pl."):
            yield source.package(module), line


def test_every_package_has_a_floor():
    folders = {p.name for p in source.PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert folders <= set(FLOORS), f"no floor for {folders - set(FLOORS)}"
    loose = [source.name(f) for f in source.PACKAGE.glob("*.py") if f.name != "__init__.py"]
    assert not loose, f"in no package: {loose}"


def test_imports_run_downward():
    wrong = []
    for file in source.files():
        here = source.package(source.module_of(file))
        for there, line in project_imports(file):
            if there not in FLOORS:
                continue  # a name of the package itself, such as __version__
            if not here or not allowed(here, there):
                wrong.append(
                    f"{source.name(file)}:{line}: {here or 'the package'} may not import {there}"
                )
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_cycle_at_any_depth():
    """Imports inside functions and under TYPE_CHECKING count."""
    modules = {source.module_of(file): file for file in source.files()}
    graph = {module: imported_modules(file, modules) - {module} for module, file in modules.items()}
    circles = [sorted(group) for group in strongly_connected(graph) if len(group) > 1]
    assert not circles, "\n".join(", ".join(circle) for circle in circles)


def imported_modules(file, modules):
    """The modules of the package that a file imports anywhere, packages' __init__ left out."""
    names_seen = set()
    for name, _, _ in source.imports(file):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name and modules[name].name != "__init__.py":
            names_seen.add(name)
    return names_seen


def strongly_connected(graph):
    """Groups of nodes that reach each other (Tarjan 1972)."""
    order, low, stack, groups = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for following in graph[node]:
            if following not in order:
                visit(following)
            if following in stack:
                low[node] = min(low[node], low[following])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            groups.append(group)

    for node in graph:
        if node not in order:
            visit(node)
    return groups


def _is_lazy(module):
    return module.split(".")[0] in LAZY or module.rpartition(".")[0] in SUBCLASSES


def test_an_import_cycle_is_detected():
    assert [
        sorted(g) for g in strongly_connected({"a": {"b"}, "b": {"a"}, "c": {"a"}}) if len(g) > 1
    ] == [["a", "b"]]


def test_heavy_packages_are_imported_inside_functions():
    wrong = [
        f"{source.name(file)}:{line}: import {module} inside the function that needs it"
        for file in source.files()
        for module, line, on_import in source.imports(file)
        if on_import and _is_lazy(module) and source.module_of(file) not in SUBCLASSES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("frameworks", "packages"),
    [
        (("lightning", "pytorch_lightning"), ("training", "app")),
        (("hydra", "omegaconf"), ("config", "app")),
        (PRETRAINED, tuple(r for r, floor in FLOORS.items() if 3 <= floor <= 6)),
    ],
    ids=["lightning", "hydra", "pretrained"],
)
def test_frameworks_are_imported_only_in_their_packages(frameworks, packages):
    wrong = [
        f"{source.name(file)}:{line}: {module} belongs in {', '.join(packages)}"
        for file in source.files()
        for module, line, _ in source.imports(file)
        if module.split(".")[0] in frameworks
        and source.package(source.module_of(file)) not in packages
    ]
    assert not wrong, "\n".join(wrong)


def test_scripts_are_short_and_import_only_app():
    for script in source.SCRIPTS:
        assert len(script.read_text().splitlines()) <= 30, f"{script.name} is a recipe: 30 lines"
        for node in ast.walk(source.tree(script)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyflux_pl"):
                assert (node.module or "").startswith("tinyflux_pl.app"), (
                    f"{script.name} imports {node.module}"
                )


@pytest.mark.parametrize(
    ("importer", "imported", "verdict"),
    [
        ("diffusion", "core", True),
        ("core", "diffusion", False),
        ("nets", "codecs", False),
        ("codecs", "text", False),
        ("experts", "objectives", True),
        ("objectives", "experts", False),
        ("training", "inference", False),
        ("training", "data", True),
        ("data", "data", True),
    ],
)
def test_an_import_is_allowed_only_downward(importer, imported, verdict):
    assert allowed(importer, imported) is verdict


def test_every_kind_of_import_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROOT", tmp_path)
    file = tmp_path / "tinyflux_pl" / "nets" / "sub.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        textwrap.dedent(
            """
            import diffusers.models
            from tinyflux_pl import app
            from ..cache import store
            from . import rope
            if TYPE_CHECKING:
                import peft
            try:
                import torchao
            finally:
                pass
            def f():
                from transformers import T5
            """
        )
    )
    assert [(module, on_import) for module, _, on_import in source.imports(file)] == [
        ("diffusers.models", True),
        ("tinyflux_pl.app", True),
        ("tinyflux_pl.cache.store", True),
        ("tinyflux_pl.nets.rope", True),
        ("peft", False),
        ("torchao", True),
        ("transformers.T5", False),
    ]
