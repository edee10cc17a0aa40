"""Previews over the steps: the same prompts and seeds, one step at a time or all in a strip."""

from __future__ import annotations

from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.page import absent
from tinyflux_pl.report.pictures import Previews, Shot


def section(previews: Previews) -> Markup:
    """Slider, strip and pictures with their captions; empty without previews."""
    if not previews.shots:
        return Markup()
    steps = sorted(previews.shots)
    sheets = previews.captions == [""]
    subjects = [_subject(caption, previews, steps) for caption in previews.captions]
    box = tag(
        "div",
        _controls(steps, sheets),
        tag("div", subjects, class_="shots"),
        class_="card pictures sheets" if sheets else "card pictures",
        data_view="one",
    )
    return Markup(box + absent("Shown here", previews.notes))


def controls(steps: list[int], modes: bool = True) -> Markup:
    """The slider over steps with its play button, and the two views."""
    last = len(steps) - 1
    slide = [
        tag("button", "▶ play", type="button", class_="play"),
        tag(
            "input",
            type="range",
            min="0",
            max=last,
            value=last,
            step="1",
            aria_label="step",
            data_steps=" ".join(map(str, steps)),
        ),
        tag("output", f"step {steps[-1]:,}"),
    ]
    views = [
        tag("button", "one step", type="button", data_mode="one", aria_pressed="true"),
        tag("button", "all steps", type="button", data_mode="all", aria_pressed="false"),
    ]
    group = tag("span", views, class_="group") if modes and last else None
    moving = tag("span", slide, class_="controls slide", style="flex:1;margin:0") if last else None
    single = None if last else tag("output", f"step {steps[-1]:,}")
    return tag("div", group, moving, single, class_="controls")


def shot(picture: Shot | None, alt: str, step: int, on: bool) -> Markup:
    """A picture at a step; a dash where there is none."""
    image = picture.image(alt) if picture else tag("span", "–", role="img", aria_label=f"no {alt}")
    small = tag("small", f"{step:,}")
    return tag("div", image, small, class_="shot on" if on else "shot", data_step=step)


def _controls(steps: list[int], sheets: bool) -> Markup:
    return controls(steps, modes=not sheets)


def _subject(caption: str, previews: Previews, steps: list[int]) -> Markup:
    alt = caption or "sheet of previews"
    strip = [
        shot(previews.shots[step].get(caption), f"{alt}, step {step}", step, step == steps[-1])
        for step in steps
    ]
    label = tag("div", caption, class_="caption") if caption else None
    return tag("div", tag("div", strip, class_="strip"), label, class_="subject")
