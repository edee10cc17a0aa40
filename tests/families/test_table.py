"""docs/families.md names every family that conf/model offers, once."""

from tests.families import table


def test_the_documented_table_lists_every_family():
    assert table.lines() == table.families()
