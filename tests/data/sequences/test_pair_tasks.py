"""The two worked tasks: halves of real digits, and charts drawn by rule; what is asked, and who
judges.
"""

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
def test_halves_make_the_scan_and_stand_where_they_were(patch):
    source = DigitHalves("validation", patch)
    pairs = every(source)
    scans = from_squares(torch.cat((pairs.condition, pairs.target), 1))
    assert torch.equal(to_squares(scans, patch)[:, : source.shape.tokens], pairs.condition)
    known = torch.from_numpy(split_of("validation")[0]).float() / 16
    # its last 100 are the house's
    assert all(bool((scan == known).flatten(1).all(1).any()) for scan in scans[100:])
    rows = scans.unflatten(1, (-1, patch)).unflatten(3, (-1, patch)).transpose(2, 3)  # b r c p q
    for ids, tokens in ((pairs.condition_ids, pairs.condition), (pairs.target_ids, pairs.target)):
        _, row, column = ids[7].long().unbind(-1)
        assert torch.equal(rows[7][row, column].flatten(1), tokens[7])


def test_no_half_is_in_two_splits_and_none_is_the_judge_s():
    train, held = every(DigitHalves("train")), every(DigitHalves("validation"))
    judged = to_squares(torch.from_numpy(split_of("reader")[0]).float() / 16, 2)

    def keys(tokens):
        return {scan.numpy().tobytes() for scan in tokens}

    own = keys(torch.cat((train.condition, train.target), 1))
    others = keys(torch.cat((held.condition, held.target), 1))
    assert len(train) == 800 and len(held) == 200
    assert not own & others and not (own | others) & keys(judged)


def test_the_reader_reads_real_digits_and_not_the_mean_s_or_another_s_lower_half():
    source = DigitHalves("train")
    prompts = source.prompts(200)
    pairs, reader = source.named(prompts), source.verifier()
    assert sorted(prompts) == sorted(DigitHalves("validation").names(range(200)))
    found = {
        name: part.float().mean()
        for name, part in reader.check(pairs.target.mT[..., None], prompts).items()
    }
    assert found["all"] == found["digit"] == found["truth"] >= 0.97
    assert 0.5 < found["mean"] < 0.75
    other = reader.check(pairs.target.roll(1, 0).mT[..., None], prompts)
    assert other["all"].float().mean() < 0.5


def test_the_picture_shows_what_was_given_what_was_drawn_and_what_is_true():
    source = DigitHalves()
    prompts = source.prompts(3)
    pairs = source.named(prompts)
    pictures, said = source.pictures(torch.zeros_like(pairs.target).mT[..., None], prompts)
    given, drawn, real = pictures[:, :, :8], pictures[:, :, 9:17], pictures[:, :, 18:]
    assert pictures.shape == (3, 3, 26, 8) and (pictures[:, :, [8, 17]] == 1).all()
    assert (
        torch.equal(given, drawn)
        and (given[:, :, 4:] == -1).all()
        and torch.equal(given[:, :, :4], real[:, :, :4])
    )
    assert not torch.equal(real, drawn) and said[0].startswith(f"a {pairs.labels[0]}, read as ")


def test_a_chart_is_what_its_list_says():
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


def test_no_chart_is_in_two_splits_in_whatever_order_its_bars_come():
    train, held = every(BarCharts("train", 2048, 128)), every(BarCharts("validation", 2048, 128))
    assert not set(train.labels) & set(held.labels) and len(held) == 128
    assert {len(label.replace("0", "")) for label in held.labels} == set(range(2, COLUMNS + 1))


def test_charts_are_judged_cell_by_cell():
    source = BarCharts("train", 256, 128)
    prompts = source.prompts(100)
    truth = source.named(prompts).target
    found = source.verifier().check(0.2 * truth.mT[..., None], prompts)
    assert found["all"].all() and found["truth"].all() and found["mean"].float().mean() < 0.05
    wrong = truth.clone()
    wrong[:, :2] *= -1
    found = source.verifier().check(wrong.mT[..., None], prompts)
    assert not found["all"].any() and found["all_but_two"].all()
    wrong[:, 2] *= -1
    assert not source.verifier().check(wrong.mT[..., None], prompts)["all_but_two"].any()
    pictures, said = source.pictures(truth.mT[..., None], prompts)
    assert torch.equal(pictures[..., :COLUMNS], pictures[..., COLUMNS + 1 :]) and len(said) == 100


@pytest.mark.parametrize(
    "asked",
    [{"split": "test"}, {"split": "train", "patch": 3}, {"split": "reader"}],
    ids=lambda a: str(a),
)
def test_what_cannot_be_had_is_refused(asked):
    with pytest.raises(ConfigError):
        DigitHalves(**asked)
    with pytest.raises(ConfigError):
        BarCharts("train", 0)
    with pytest.raises(ConfigError):
        BarCharts("reader")


def test_records_end_where_their_pairs_do():
    for source in (DigitHalves("validation"), BarCharts("validation", 64, 4)):
        assert torch.equal(
            torch.from_numpy(source[len(source) - 1].image)[:, 0], every(source).target[-1]
        )
        with pytest.raises(IndexError):
            source[len(source)]
        assert identity_for(source).ids == every(source).target_ids[0].tolist()
