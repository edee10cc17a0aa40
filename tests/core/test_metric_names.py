"""The catalogue has one entry per logged name, and the documented table is made from it."""

import re
from pathlib import Path

import pytest

from tinyflux_pl.core import metric_names as names

DOCUMENT = Path(__file__).parents[2] / "docs" / "dashboards.md"


def test_the_documented_table_is_the_catalogue():
    text = DOCUMENT.read_text()
    table = text.partition("<!-- names -->\n")[2].partition("<!-- /names -->")[0]
    assert table.splitlines() == list(names.table()), (
        "python -m tests.core.test_metric_names writes it: run it and look at the difference"
    )


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("train/loss", names.LOSS),
        ("train/flow", names.TERM),
        ("train/lune_unweighted", names.UNWEIGHTED),
        ("train/gate_vec", names.GATE),
        ("train/gradient_norm", names.GRADIENT_NORM),
        ("train/gradient_norm_double_blocks", names.MODULE_GRADIENT_NORM),
        ("train/learning_rate_0", names.LEARNING_RATE),
        ("validation/loss_t_0.5", names.VALIDATION_AT),
        ("preview/fit", names.FIT),
        ("results/accuracies/shapes/held_out/colour", names.RESULT_ACCURACY),
        ("results/novelty/digits/train/generated/0.5", names.RESULT_NOVELTY),
        ("elsewhere/loss", None),
        ("train/a/b", None),
    ],
)
def test_a_name_belongs_to_the_most_specific_entry(name, entry):
    assert names.find(name) is entry


def test_an_entry_matches_the_names_it_generates():
    for entry in names.CATALOGUE:
        parts = dict.fromkeys(re.findall(r"\{(\w+)\}", entry.pattern), "x1")
        assert entry.matches(entry.of(**parts)), entry


def test_only_time_and_memory_metrics_are_machine_dependent():
    measured = {entry.pattern for entry in names.CATALOGUE if entry.measured}
    assert measured == {
        "train/images_per_second",
        "train/data_wait_seconds",
        "train/mfu",
        "train/peak_memory_bytes",
    }


if __name__ == "__main__":
    head, mark, rest = DOCUMENT.read_text().partition("<!-- names -->\n")
    end = "<!-- /names -->"
    table = "".join(f"{line}\n" for line in names.table())
    DOCUMENT.write_text(f"{head}{mark}{table}{end}{rest.partition(end)[2]}")
