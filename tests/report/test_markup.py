"""No text becomes a tag, whatever it holds."""

import json

import pytest

from tinyflux_pl.report.markup import Markup, data_block, tag, text

HOSTILE = '</script><script>alert(1)</script>" onload="x" \' &amp;'


def test_text_and_attributes_are_escaped():
    element = tag("p", HOSTILE, title=HOSTILE)
    assert "<script" not in element and 'onload="x"' not in element
    assert element.count("<") == 2


def test_markup_is_not_escaped_twice():
    assert tag("b", tag("i", "a < b")) == "<b><i>a &lt; b</i></b>"


def test_attributes_follow_python_names():
    assert tag("a", "x", class_="c", data_step=3, hidden=True, href=None, download=False) == (
        '<a class="c" data-step="3" hidden>x</a>'
    )


def test_control_characters_are_written_out():
    assert text("a\x1b[2J\u202eb") == "a\\x1b[2J\\u202eb"


@pytest.mark.parametrize("value", [HOSTILE, "<!--", "\u2028", "]]>"])
def test_data_never_ends_its_element_and_comes_back(value):
    block = data_block("key", {"name": value})
    content = block.removeprefix('<script type="application/json" id="key">')
    content = content.removesuffix("</script>")
    assert not set("<>&\u2028") & set(content)
    assert json.loads(content) == {"name": value}


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError):
        data_block("key", float("nan"))


def test_plain_text_next_to_markup_is_escaped():
    assert tag("p", Markup("<br>"), "<br>") == "<p><br>&lt;br&gt;</p>"
