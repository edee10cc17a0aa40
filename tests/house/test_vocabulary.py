"""Names are the field's terms, docstrings are statements: the private vocabulary of earlier
versions stays out.
"""

import ast
import re
from collections import Counter

import pytest

from tests.house import source

DIALECT = frozenset(
    [
        *(
            "told",
            "untold",
            "found",
            "held",
            "made",
            "given",
            "own",
            "whole",
            "others",
            "mine",
            "shown",
        ),
        *(
            "asked",
            "said",
            "beside",
            "odd",
            "luck",
            "wanted",
            "known",
            "lot",
            "apart",
            "place",
            "places",
            "what",
        ),
    ]
)
# `what`, `where` and `cure` are the three lines of an error (core/errors.py), set wherever one is
# raised
ERROR_FIELDS = {"what"}
RELATIVE = re.compile(r"^(?:What|Whether|Which|Who|Whose|How)\b")


def bound_names(tree):
    """(name, line) of every variable, parameter, function, class and attribute that a file
    defines.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno


def docstrings(tree):
    """(first line, line number) of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0], getattr(node, "lineno", 1)


def dialect_in(file):
    """Lines of a file that define a name of the private vocabulary."""
    names = (
        (name, line) for name, line in bound_names(source.tree(file)) if name not in ERROR_FIELDS
    )
    return [
        f"{source.name(file)}:{line}: {name}"
        for name, line in names
        if name.strip("_").lower() in DIALECT
    ]


def riddles_in(file):
    """Docstrings of a file that begin with a relative clause."""
    return [
        f"{source.name(file)}:{line}: {text[:80]}"
        for text, line in docstrings(source.tree(file))
        if RELATIVE.match(text)
    ]


def test_no_name_of_the_private_vocabulary_is_defined():
    offences = [line for file in source.files() for line in dialect_in(file)]
    counts = Counter(line.split("/")[1] for line in offences)
    assert not offences, f"{len(offences)} {dict(counts)}\n" + "\n".join(offences[:200])


def test_docstrings_are_statements():
    offences = [line for file in source.files() for line in riddles_in(file)]
    assert not offences, f"{len(offences)}\n" + "\n".join(offences[:200])


@pytest.mark.parametrize(
    "line", ["told = 1", "def _found(): ...", "self.kept = 2", "OTHERS = 3", "lambda own: own"]
)
def test_the_vocabulary_rule_sees_each_kind_of_definition(line):
    names = {name.strip("_").lower() for name, _ in bound_names(ast.parse(line))}
    assert names & (DIALECT | {"kept"})
