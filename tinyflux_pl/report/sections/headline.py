"""The top of a run's page: name, state, accuracy, last pictures, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.report import figures
from tinyflux_pl.report.markup import Markup, join, tag
from tinyflux_pl.report.page import absent, bars
from tinyflux_pl.report.pictures import Previews
from tinyflux_pl.report.run_files import FINISHED, RUNNING, RunFiles
from tinyflux_pl.statistics.proportion import share_interval

SPLITS = {"train": "seen", "held_out": "held out", "short": "short prompts"}
TONES = {FINISHED: "good", RUNNING: "warn"}
MOSAIC = 8


def header(run: RunFiles, previews: Previews) -> Markup:
    """Name, sentence, main cards, tiles, and missing files."""
    pill = tag("span", run.state, class_=f"pill {TONES.get(run.state, 'bad')}")
    top = [
        tag("p", "run report", class_="eyebrow"),
        tag("h1", run.name, " ", pill),
        tag("p", _sentence(run), class_="lead"),
    ]
    cards = [card for card in (_accuracy(run), _mosaic(previews)) if card]
    hero = tag("div", cards, class_="hero" if len(cards) > 1 else "hero single") if cards else None
    return tag("header", top, hero, _tiles(run), absent("Not in this report", run.notes))


def split_label(name: str) -> str:
    """The reader's name of source/split."""
    return SPLITS.get(name.rpartition("/")[2], name.rpartition("/")[2].replace("_", " "))


def accuracies(run: RunFiles) -> dict[str, dict[str, float]]:
    """source/split -> claim -> share, of what results.json holds in that form."""
    content = run.results.get("accuracies")
    if not isinstance(content, Mapping):
        return {}
    order = list(SPLITS)
    splits = {
        str(name): {str(k): float(v) for k, v in claims.items() if _is_share(v)}
        for name, claims in content.items()
        if isinstance(claims, Mapping)
    }
    last = len(order)
    ranks = {n: order.index(s) if (s := n.rpartition("/")[2]) in order else last for n in splits}
    return {
        name: splits[name] for name in sorted(splits, key=lambda n: (n.split("/")[0], ranks[n]))
    }


def several_sources(names: Mapping[str, Any]) -> bool:
    """True if the names source/split are of more than one source."""
    return len({name.rpartition("/")[0] for name in names}) > 1


def title_of(name: str, several: bool) -> str:
    """The split, after its source where there are several."""
    source = name.rpartition("/")[0]
    return f"{source}, {split_label(name)}" if several else split_label(name)


def _sentence(run: RunFiles) -> str:
    parameters = run.results.get("parameters")
    size = f"{figures.count(parameters)} parameters" if parameters else "A network"
    teachers = f"the experts {' and '.join(run.experts)}" if run.experts else "no experts"
    planned = run.config.get("steps")
    steps = (
        f"step {run.step:,} of {planned:,}" if isinstance(planned, int) else f"step {run.step:,}"
    )
    data = run.get("data", "name") or run.results.get("data") or "unknown data"
    return (
        f"{size}, trained on {data} with {teachers}; {steps}, seed {run.config.get('seed', '?')}."
    )


def _accuracy(run: RunFiles) -> Markup:
    shares = {name: c["all"] for name, c in accuracies(run).items() if "all" in c}
    if not shares:
        return Markup()
    prompts = run.get("data", "evaluation_prompts")
    count = prompts if isinstance(prompts, int) and prompts > 0 else 0
    first = next(iter(shares))
    several = several_sources(shares)
    score = tag(
        "p", figures.percent(shares[first]), tag("small", title_of(first, several)), class_="score"
    )
    rows = [
        (
            title_of(name, several),
            share,
            figures.percent(share),
            rank,
            share_interval(share, count) if count else None,
        )
        for rank, (name, share) in enumerate(shares.items())
    ]
    lines = f"; the lines are 95 % intervals over {count:,} prompts a split" if count else ""
    note = f"Pictures that show everything in their prompt, read back by a verifier{lines}."
    title = tag("h3", "Prompt accuracy", style="margin-top:0")
    return tag("div", title, score, bars(rows), tag("p", note, class_="note"), class_="card")


def _mosaic(previews: Previews) -> Markup:
    if not previews.shots:
        return Markup()
    step = max(previews.shots)
    shots = list(previews.shots[step].items())[:MOSAIC]
    title = tag("h3", f"Drawn at step {step:,}", style="margin-top:0")
    if len(shots) == 1:
        return tag("div", title, shots[0][1].image(f"previews of step {step}"), class_="card")
    images = [shot.image(caption) for caption, shot in shots]
    note = tag("p", "From the averaged weights, by the sampler of generate.py.", class_="note")
    return tag("div", title, tag("div", images, class_="mosaic"), note, class_="card")


def _tiles(run: RunFiles) -> Markup:
    results = run.results
    loss = run.curves.get("validation/loss")
    last_loss = results.get("validation_loss", loss.last if loss else None)
    speed = run.curves.get("train/images_per_second")
    rate = results.get("images_per_second") or (speed.last if speed else None)
    tiles = [
        ("validation loss", figures.fixed(last_loss), "mean squared error, held-out pictures"),
        ("steps", f"{run.step:,}", _batch(run)),
        ("throughput", figures.fixed(rate, 3), "images/s while training"),
        ("time", figures.duration(results.get("seconds")), "from start to evaluation"),
        ("peak memory", figures.size(results.get("peak_memory_bytes")), _device(run)),
    ]
    present = [tile for tile in tiles if tile[1] != figures.short(None)]
    return tag("dl", [_tile(*tile) for tile in present], class_="tiles")


def _tile(label: str, value: str, detail: str) -> Markup:
    small = tag("small", detail) if detail else None
    return tag("div", tag("dt", label), tag("dd", value, small))


def _batch(run: RunFiles) -> str:
    size = run.get("hardware", "batch_size")
    return f"of {size} samples" if isinstance(size, int) else ""


def _device(run: RunFiles) -> str:
    device = run.environment.get("device") or run.get("hardware", "accelerator")
    return str(device) if device else ""


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def facts(rows: Mapping[str, object]) -> Markup:
    """A short table of names and values."""
    body = [
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows.items()
    ]
    return join([tag("table", tag("tbody", body))])
