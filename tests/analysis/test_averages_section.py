import pytest

from crossrank.analysis.averages import averages_section

MONITOR = "eval/dev/mean/ndcg@10"
FACTS = {
    "name": "ema", "rule": "Ema(decay=0.99)", "updates": 1200, "against_step": 8, "value": 0.5, "against": 0.4875,
    "difference": [0.0125, -0.01, 0.035], "p": 0.3125, "queries": 1234, "exported": True,
}  # fmt: skip


def test_every_number_stands_in_the_table():
    heading, note, table = averages_section([FACTS], MONITOR, 13)
    assert heading == "## Averaged weights"
    assert "on the 1,234 queries of eval/dev/mean/ndcg@10" in note
    assert note.endswith("Step 13 is no step of the training, it stands for the average ema.")
    row = "| ema | Ema(decay=0.99) | 1,200 | 0.5000 | 8 | 0.4875 | +0.0125 [-0.0100, +0.0350] | 0.312 | yes |"
    assert table.splitlines()[2] == row


@pytest.mark.parametrize("ends", [(None, None), (-0.02, 0.01)])
def test_one_that_was_not_kept_and_an_interval_that_is_not_known(ends):
    lost = FACTS | {"exported": False, "difference": [-0.005, *ends]}
    _, note, table = averages_section([lost], MONITOR, 8)
    assert note.endswith("None is, so the best step is exported.")
    assert table.endswith("| no |")
    assert ("-0.0050 [too few queries]" in table) == (ends[0] is None)


def test_without_averages_nothing_is_said():
    assert averages_section([], MONITOR, 8) == []


def test_a_name_is_shown_as_it_is():
    _, note, table = averages_section([FACTS | {"name": "a_b|c"}], MONITOR, 13)
    assert "the average a\\_b\\|c" in note
    assert "| a\\_b\\|c | Ema" in table
