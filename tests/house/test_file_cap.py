"""A file is one noun that fits in one head."""

from tests.house import source

CAP = 250


def test_no_file_of_the_package_is_longer_than_the_cap():
    lengths = {source.name(f): len(f.read_text().splitlines()) for f in source.files()}
    assert not {name: n for name, n in lengths.items() if n > CAP}, (
        f"split it: the cap is {CAP} lines"
    )


def test_every_file_begins_with_a_docstring():
    silent = [
        source.name(f)
        for f in (*source.files(), *source.SCRIPTS)
        if not f.read_text().startswith('"""')
    ]
    silent = [name for name in silent if not name.endswith("__init__.py")]
    assert not silent, f"no docstring in {silent}"
