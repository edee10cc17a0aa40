"""docs/families.md names every family that conf/model offers, once."""

from tests.families import table


def test_every_family_has_its_line():
    assert table.lines() == table.families()
