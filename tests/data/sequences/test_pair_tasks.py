"""The two documented tasks: halves of real digits, and synthetic bar charts."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.sequences.codecs import identity_for
from tinyflux_pl.data.tasks.bar_charts import COLUMNS, BarCharts
from tinyflux_pl.data.tasks.digits.halves import DigitHalves, from_squares, to_squares
from tinyflux_pl.data.tasks.digits.scans import split_of


def every(source):
    return source.pairs(range(len(source)))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_digit_halves_reassemble_to_the_scan_at_their_positions(patch):
    source = DigitHalves("validation", patch)
    pairs = every(source)
    scans = from_squares(torch.cat((pairs.condition, pairs.target), 1))
    assert torch.equal(to_squares(scans, patch)[:, : source.shape.tokens], pairs.condition)
    scans_of_split = torch.from_numpy(split_of("validation")[0]).float() / 16
    # its last 100 are the house's
    assert all(bool((scan == scans_of_split).flatten(1).all(1).any()) for scan in scans[100:])
    rows = scans.unflatten(1, (-1, patch)).unflatten(3, (-1, patch)).transpose(2, 3)  # b r c p q
    for ids, tokens in ((pairs.condition_ids, pairs.condition), (pairs.target_ids, pairs.target)):
        _, row, column = ids[7].long().unbind(-1)
        assert torch.equal(rows[7][row, column].flatten(1), tokens[7])


def test_digit_halves_share_no_scan_between_splits_or_with_the_verifier():
    train, validation = every(DigitHalves("train")), every(DigitHalves("validation"))
    judged = to_squares(torch.from_numpy(split_of("reader")[0]).float() / 16, 2)

    def keys(tokens):
        return {scan.numpy().tobytes() for scan in tokens}

    training_scans = keys(torch.cat((train.condition, train.target), 1))
    validation_scans = keys(torch.cat((validation.condition, validation.target), 1))
    assert len(train) == 800 and len(validation) == 200
    assert not training_scans & validation_scans and not (training_scans | validation_scans) & keys(
        judged
    )


def test_the_verifier_accepts_real_digits_and_rejects_mean_or_foreign_halves():
    source = DigitHalves("train")
    prompts = source.prompts(200)
    pairs, reader = source.named(prompts), source.verifier()
    assert sorted(prompts) == sorted(DigitHalves("validation").names(range(200)))
    kept = {
        name: part.float().mean()
        for name, part in reader.check(pairs.target.mT[..., None], prompts).items()
    }
    assert kept["all"] == kept["digit"] == kept["truth"] >= 0.97
    assert 0.5 < kept["mean"] < 0.75
    other = reader.check(pairs.target.roll(1, 0).mT[..., None], prompts)
    assert other["all"].float().mean() < 0.5


def test_the_preview_shows_condition_sample_and_target():
    source = DigitHalves()
    prompts = source.prompts(3)
    pairs = source.named(prompts)
    pictures, captions = source.pictures(torch.zeros_like(pairs.target).mT[..., None], prompts)
    condition, drawn, real = pictures[:, :, :8], pictures[:, :, 9:17], pictures[:, :, 18:]
    assert pictures.shape == (3, 3, 26, 8) and (pictures[:, :, [8, 17]] == 1).all()
    assert (
        torch.equal(condition, drawn)
        and (condition[:, :, 4:] == -1).all()
        and torch.equal(condition[:, :, :4], real[:, :, :4])
    )
    assert not torch.equal(real, drawn) and captions[0].startswith(f"a {pairs.labels[0]}, read as ")


def test_a_bar_chart_equals_its_list_of_heights():
    pairs = every(BarCharts("train", 64))
    assert set(pairs.condition_mask.sum(1).tolist()) == set(range(2, COLUMNS + 1))
    for i in range(64):
        cells = torch.full((COLUMNS, COLUMNS), -1.0)
        for column, height in pairs.condition[i][pairs.condition_mask[i]].long().tolist():
            cells[COLUMNS - height :, column] = 1.0
        assert torch.equal(pairs.target[i].reshape(COLUMNS, COLUMNS), cells)
        assert [int(h) for h in pairs.labels[i]] == [
            int((cells[:, c] > 0).sum()) for c in range(COLUMNS)
        ]
    assert torch.equal(
        every(BarCharts("train", 64)).target, BarCharts("train", 128).pairs(range(64)).target
    )


def test_bar_charts_share_no_set_of_bars_between_splits():
    train, validation = (
        every(BarCharts("train", 2048, 128)),
        every(BarCharts("validation", 2048, 128)),
    )
    assert not set(train.labels) & set(validation.labels) and len(validation) == 128
    assert {len(label.replace("0", "")) for label in validation.labels} == set(
        range(2, COLUMNS + 1)
    )


def test_bar_charts_are_verified_cell_by_cell():
    source = BarCharts("train", 256, 128)
    prompts = source.prompts(100)
    truth = source.named(prompts).target
    kept = source.verifier().check(0.2 * truth.mT[..., None], prompts)
    assert kept["all"].all() and kept["truth"].all() and kept["mean"].float().mean() < 0.05
    wrong = truth.clone()
    wrong[:, :2] *= -1
    kept = source.verifier().check(wrong.mT[..., None], prompts)
    assert not kept["all"].any() and kept["all_but_two"].all()
    wrong[:, 2] *= -1
    assert not source.verifier().check(wrong.mT[..., None], prompts)["all_but_two"].any()
    pictures, captions = source.pictures(truth.mT[..., None], prompts)
    assert (
        torch.equal(pictures[..., :COLUMNS], pictures[..., COLUMNS + 1 :]) and len(captions) == 100
    )


@pytest.mark.parametrize(
    "settings",
    [{"split": "test"}, {"split": "train", "patch": 3}, {"split": "reader"}],
    ids=lambda a: str(a),
)
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        DigitHalves(**settings)
    with pytest.raises(ConfigError):
        BarCharts("train", 0)
    with pytest.raises(ConfigError):
        BarCharts("reader")


def test_records_have_the_length_of_their_pairs():
    for source in (DigitHalves("validation"), BarCharts("validation", 64, 4)):
        assert torch.equal(
            torch.from_numpy(source[len(source) - 1].image)[:, 0], every(source).target[-1]
        )
        with pytest.raises(IndexError):
            source[len(source)]
        assert identity_for(source).ids == every(source).target_ids[0].tolist()
