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
# In compounds the field has these words too: held-out data, a known key; found_inf is torch's.
IN_COMPOUNDS = DIALECT - {"known"}
TERMS = re.compile(r"held_out|HELD_OUT|found_inf")
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
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


def is_dialect(name):
    """True for a name of the private vocabulary, and for a compound with a word of it."""
    words = [word.lower() for word in WORDS.findall(TERMS.sub("", name))]
    if name in ERROR_FIELDS:
        return False
    return words[0] in DIALECT if len(words) == 1 else bool(IN_COMPOUNDS.intersection(words))


def dialect_in(file):
    """Lines of a file that define a name of the private vocabulary, the file's own name at 1."""
    names = [(file.stem, 1), *bound_names(source.tree(file))]
    return [f"{source.name(file)}:{line}: {name}" for name, line in names if is_dialect(name)]


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
    "line",
    [
        "told = 1",
        "def _found(): ...",
        "self.held = 2",
        "OTHERS = 3",
        "lambda own: own",
        "def is_told(): ...",
        "_own_tensors = 4",
        "class ShownPictures: ...",
    ],
)
def test_each_kind_of_definition_is_seen(tmp_path, monkeypatch, line):
    assert offences_of(tmp_path, monkeypatch, "module", line)


def test_the_name_of_a_file_is_seen(tmp_path, monkeypatch):
    assert offences_of(tmp_path, monkeypatch, "encoder_place", "")


@pytest.mark.parametrize(
    "line", ["what = 1", "def held_out(): ...", "known_keys = 2", "found_inf = 3", "print(told)"]
)
def test_terms_of_the_field_and_uses_pass(tmp_path, monkeypatch, line):
    assert not offences_of(tmp_path, monkeypatch, "module", line)


def offences_of(folder, monkeypatch, name, line):
    """The offences of a file of one line."""
    monkeypatch.setattr(source, "ROOT", folder)
    file = folder / f"{name}.py"
    file.write_text(f"{line}\n")
    return dialect_in(file)
