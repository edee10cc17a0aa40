"""Words that look the same in a message are told apart by their Unicode composition."""

import pytest

from tinyflux_pl.core.printable import printable

COMPOSED, DECOMPOSED = "caf\xe9.png", "cafe\u0301.png"


@pytest.mark.parametrize(
    "form", ["{} and {} differ", "copies: {}, {}", "'{}' = '{}'", "le {} ({})", "{}\n{}"]
)
def test_two_spellings_of_a_name_are_distinguishable(form):
    escaped = "cafe\\u0301.png"
    assert printable(form.format(COMPOSED, DECOMPOSED)) == form.format(COMPOSED, escaped)
    assert printable(form.format(DECOMPOSED, COMPOSED)) == form.format(escaped, COMPOSED)


@pytest.mark.parametrize("text", [DECOMPOSED, f"{DECOMPOSED} and {DECOMPOSED}", COMPOSED, "cafe"])
def test_a_name_in_one_spelling_stays_readable(text):
    assert printable(text) == text


def test_two_decomposed_spellings_are_escaped_both():
    one, other = "a\u0323\u0307", "a\u0307\u0323"
    assert printable(f"{one} {other}") == "a\\u0323\\u0307 a\\u0307\\u0323"
