"""The project's own files, parsed once for the tests of the house."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tinyflux_pl"
SCRIPTS = tuple(ROOT / name for name in ("train.py", "extract.py", "generate.py"))


def files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name(file: Path) -> str:
    """Its path as a reader would write it."""
    return file.relative_to(ROOT).as_posix()


@cache
def tree(file: Path) -> ast.Module:
    """Its syntax tree."""
    return ast.parse(file.read_text(), filename=str(file))


def package(module: str) -> str:
    """The package of a dotted module of the project: '' for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def module_of(file: Path) -> str:
    """The dotted module that a file of the package is."""
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> list[tuple[str, int, bool]]:
    """(dotted module, line, whether it runs on import) of each import statement."""
    collected: list[tuple[str, int, bool]] = []
    _collect(tree(file), module_of(file), file.name == "__init__.py", True, collected)
    return collected


def _collect(
    node: ast.AST, module: str, is_package: bool, on_import: bool, collected: list
) -> None:
    if isinstance(node, ast.Import):
        collected += [(alias.name, node.lineno, on_import) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            keep = module.split(".")
            drop = node.level - (1 if is_package else 0)
            base = ".".join([*(keep[:-drop] if drop else keep), *([base] if base else [])])
        # `from tinyflux_pl import core` names a package by its alias
        collected += [(f"{base}.{alias.name}", node.lineno, on_import) for alias in node.names]
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    for child in ast.iter_child_nodes(node):
        _collect(child, module, is_package, on_import and not inside and not typing_only, collected)
