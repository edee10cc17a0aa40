"""Names are the field's terms and docstrings are statements, in the package and in its tests.

The private vocabulary of earlier versions stays out.
"""

import ast
import re
from collections import Counter

import pytest

from tests.house import source

WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
DIALECT = frozenset(
    WORDS.findall(
        "told untold found held made given own whole others mine shown asked said beside odd luck "
        "wanted known lot apart place places what "
        "hole holes room rooms house torn theirs ours thing followed weightless having settle "
        "together lies them"
    )
)
# In compounds the field has these words too: held-out data, a known key; found_inf is torch's.
IN_COMPOUNDS = DIALECT - {"known"}
# The name of a test is a sentence: words like `given` and `own` are plain English in it, these not.
IN_SENTENCES = frozenset(
    WORDS.findall(
        "told untold made whole mine shown asked said beside odd luck wanted lot apart "
        "whoever whatever nobody somebody anew heard"
    )
)
RIDDLE = re.compile(
    r"^test_(what|whether|whom|nor|it|its|they|their|nothing_there|all_is)_"
    r"|_(is|are)_(diffusers|taken)$|_(has|had|have)_none$|_likewise$|_to_the_bit$"
)
TERMS = re.compile(r"held_out|HELD_OUT|found_inf")
# `what`, `where` and `cure` are the three lines of an error (core/errors.py), set wherever one is
# raised
ERROR_FIELDS = {"what"}
RELATIVE = re.compile(r"^(?:What|Whether|Which|Who|Whom|Whose|How)\b")


def files():
    """Every Python file of the package and of its tests."""
    return [*source.files(), *sorted((source.ROOT / "tests").rglob("*.py"))]


def bound_names(tree):
    """(name, line) of every variable, parameter, function, class and attribute defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno


def docstrings(tree):
    """(text, line number) of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield text, getattr(node, "lineno", 1)


def words_of(name):
    """The lower-case words of a name, without terms of the field."""
    return [word.lower() for word in WORDS.findall(TERMS.sub("", name))]


def is_dialect(name):
    """True for a name of the private vocabulary, and for a compound with a word of it."""
    words = words_of(name)
    if name in ERROR_FIELDS or not words:
        return False
    if words[0] == "test" and len(words) > 1:
        return bool(IN_SENTENCES.intersection(words)) or bool(RIDDLE.search(name))
    return words[0] in DIALECT if len(words) == 1 else bool(IN_COMPOUNDS.intersection(words))


def dialect_in(file):
    """Lines of a file that define a name of the private vocabulary, the file's own name at 1."""
    names = [(file.stem, 1), *bound_names(source.tree(file))]
    return [f"{source.name(file)}:{line}: {name}" for name, line in names if is_dialect(name)]


def riddles_in(file):
    """Docstrings of a file that begin with a relative clause."""
    return [
        f"{source.name(file)}:{line}: {text.splitlines()[0][:80]}"
        for text, line in docstrings(source.tree(file))
        if RELATIVE.match(text)
    ]


def long_beginnings_in(file):
    """Docstrings of a file whose first paragraph is longer than one line."""
    return [
        f"{source.name(file)}:{line}: {text.splitlines()[0][:80]}"
        for text, line in docstrings(source.tree(file))
        if len(text.partition("\n\n")[0].splitlines()) > 1
    ]


def require_none(offences):
    """Fail with the offences, counted by room."""
    counts = Counter("/".join(line.split("/")[:2]) for line in offences)
    assert not offences, f"{len(offences)} {dict(counts)}\n" + "\n".join(offences[:200])


def test_no_name_of_the_private_vocabulary_is_defined():
    require_none([line for file in files() for line in dialect_in(file)])


def test_docstrings_are_statements():
    require_none([line for file in files() for line in riddles_in(file)])


def test_docstrings_begin_with_one_line():
    require_none([line for file in files() for line in long_beginnings_in(file)])


@pytest.mark.parametrize(
    "line",
    [
        "told = 1",
        "def _found(): ...",
        "def read_hole(): ...",
        "free_room = 1",
        "self.held = 2",
        "OTHERS = 3",
        "lambda own: own",
        "def is_told(): ...",
        "_own_tensors = 4",
        "class ShownPictures: ...",
        "def test_what_is_lost(): ...",
        "def test_a_full_disk_is_told(): ...",
        "def test_nor_does_an_error(): ...",
        "def test_dev_is_diffusers(): ...",
    ],
)
def test_every_kind_of_definition_is_checked(tmp_path, monkeypatch, line):
    assert offences_of(tmp_path, monkeypatch, "module", line)


def test_file_names_are_checked(tmp_path, monkeypatch):
    assert offences_of(tmp_path, monkeypatch, "encoder_place", "")


@pytest.mark.parametrize(
    "line",
    [
        "what = 1",
        "def held_out(): ...",
        "known_keys = 2",
        "found_inf = 3",
        "print(told)",
        "def test_a_folder_in_place_of_a_file_is_refused(): ...",
    ],
)
def test_terms_of_the_field_and_uses_pass(tmp_path, monkeypatch, line):
    assert not offences_of(tmp_path, monkeypatch, "module", line)


@pytest.mark.parametrize(
    ("docstring", "is_offence"),
    [("One line.", False), ("One line.\n\n    Facts follow.", False), ("Two\n    lines.", True)],
)
def test_first_paragraphs_are_checked(tmp_path, monkeypatch, docstring, is_offence):
    monkeypatch.setattr(source, "ROOT", tmp_path)
    file = tmp_path / "module.py"
    file.write_text(f'def function():\n    """{docstring}"""\n')
    assert bool(long_beginnings_in(file)) is is_offence


def offences_of(folder, monkeypatch, name, line):
    """The offences of a file of one line."""
    monkeypatch.setattr(source, "ROOT", folder)
    file = folder / f"{name}.py"
    file.write_text(f"{line}\n")
    return dialect_in(file)
