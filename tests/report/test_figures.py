"""Numbers as people read them."""

import pytest

from tinyflux_pl.report import figures


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (figures.short, 0.123456, "0.1235"),
        (figures.short, 1234567, "1,234,567"),
        (figures.short, -2.5e-7, "\u22122.5e\u22127"),
        (figures.short, None, "\u2013"),
        (figures.short, float("nan"), "nan"),
        (figures.fixed, 0.39, "0.3900"),
        (figures.fixed, 1.2, "1.200"),
        (figures.fixed, "nan", "nan"),
        (figures.percent, 0.934, "93.4\u202f%"),
        (figures.count, 2_435_771, "2.44\u202fM"),
        (figures.size, 3 * 2**28, "768\u202fMiB"),
        (figures.duration, 61.5, "1.02\u202fmin"),
        (figures.duration, 7500, "2\u202fh 5\u202fmin"),
        (figures.signed, 0.5, "+0.5"),
        (figures.signed, 0, "0"),
        (figures.signed, -0.5, "\u22120.5"),
    ],
)
def test_numbers_are_formatted_for_reading(function, value, text):
    assert function(value) == text
