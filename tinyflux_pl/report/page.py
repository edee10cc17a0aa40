"""The page around the sections: one file without external resources, its script named by hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from tinyflux_pl.report.markup import Markup, join, tag

SCRIPTS = ("base.js", "line_chart.js", "parallel.js", "page.js")
STYLE = "report.css"


@dataclass(frozen=True)
class Section:
    """A part of the page with its place in the navigation; none without content."""

    key: str
    title: str
    content: Markup
    intro: str = ""


def html(title: str, header: Markup, sections: Sequence[Section], closing: str) -> str:
    """The whole document. A browser runs the one script of this hash and fetches nothing."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    present = [section for section in sections if section.content]
    links = [tag("li", tag("a", s.title, href=f"#{s.key}")) for s in present]
    scheme = tag("button", "light / dark", type="button", data_scheme=True)
    navigation = tag("nav", tag("ul", links), scheme, aria_label="Sections")
    blocks = [_block(section) for section in present]
    main = tag("main", header, blocks, tag("footer", closing), id="content")
    skip = tag("a", "Skip to the report", class_="skip", href="#content")
    noscript = tag(
        "noscript", tag("p", "Charts need this page's own script, which is switched off.")
    )
    body = tag(
        "body",
        skip,
        tag("div", navigation, main, class_="layout"),
        noscript,
        Markup(f"<script>{script}</script>"),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        Markup(f"<style>{_asset(STYLE)}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _block(section: Section) -> Markup:
    heading = tag("h2", section.title)
    intro = tag("p", section.intro) if section.intro else None
    return tag("section", heading, intro, section.content, id=section.key)


def _asset(name: str) -> str:
    return (resources.files("tinyflux_pl.report") / "assets" / name).read_text(encoding="utf-8")


def bars(rows: Sequence[tuple[str, float, str, int, tuple[float, float] | None]]) -> Markup:
    """Horizontal bars of shares: label, share, text, colour, and an interval drawn as a line."""
    return tag("ul", [_bar(*row) for row in rows], class_="bars")


def _bar(
    label: str, share: float, text: str, colour: int, interval: tuple[float, float] | None
) -> Markup:
    fill = tag("i", style=f"width:{100 * share:.2f}%;--colour:var(--series-{colour})")
    line = None
    if interval is not None:
        low, high = interval
        line = tag("em", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%")
    return tag("li", tag("span", label), tag("div", fill, line, class_="bar"), tag("b", text))


def absent(title: str, lines: Sequence[str], kind: str = "absent") -> Markup:
    """A note of missing content, and the reason."""
    if not lines:
        return Markup()
    return tag("div", tag("b", title), tag("ul", [tag("li", line) for line in lines]), class_=kind)


def grid(*figures: Markup) -> Markup:
    """Elements side by side, wrapped to the page's width."""
    present = [one for one in figures if one]
    return tag("div", join(present), class_="grid") if present else Markup()
