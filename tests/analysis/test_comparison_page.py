"""How a comparison reads, on a page, in the terminal and in a file."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from crossrank.analysis.alignment import Aligned
from crossrank.analysis.compare import Resampling, compare
from crossrank.analysis.comparison_page import as_frame, as_markdown, as_tables, verdicts, write
from crossrank.errors import DataError


def comparison(a, b, names=("a", "b"), confidence=0.95, metrics=("ndcg@10",)):
    """`a` and `b` are datasets of [trainings, queries]."""
    values = tuple(tuple(np.asarray(x, float)[:, :, None] for x in datasets) for datasets in (a, b))
    datasets = tuple(f"d{i + 1}" for i in range(len(a)))
    return compare(Aligned(tuple(names), metrics, datasets, values), "all", Resampling(confidence, 500))


def noisy(seed, centre, queries=40, trainings=1):
    draws = np.random.default_rng(seed)
    return np.clip(draws.normal(centre, 0.1, (trainings, queries)), 0, 1)


def numbers(found):
    return found.overall.iloc[0]


def test_a_difference_that_is_found_names_the_better_system_whichever_came_first():
    worse, better = [noisy(0, 0.3)], [noisy(1, 0.6)]
    for pair in ((worse, better), (better, worse)):
        found = comparison(*pair)
        row, names = numbers(found), ("b beats a", "a beats b")[pair[0] is better]
        low, high = sorted((abs(row.low), abs(row.high)))
        assert verdicts(found) == [
            f"ndcg@10: {names} by {abs(row.difference):.4f} [{low:.4f}, {high:.4f}], p = {row.p_holm:.2g}"
        ]


def test_a_difference_that_is_not_found_says_what_would_have_been():
    found = comparison([noisy(0, 0.5)], [noisy(1, 0.5)])
    row = numbers(found)
    assert verdicts(found) == [
        f"ndcg@10: b and a are not told apart: {row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}], "
        f"p = {row.p_holm:.2g}; with these 40 queries one test finds a difference of {row.detectable:.4f} 8 times in 10"
    ]


def test_equal_systems_have_nothing_to_detect():
    same = [noisy(0, 0.5)]
    assert verdicts(comparison(same, same)) == ["ndcg@10: b and a do not differ on any of the 40 queries"]
    assert "| +0.0000 [+0.0000, +0.0000] | 1 | 1 | 0/40/0 | - |" in as_markdown(comparison(same, same))


def test_the_level_of_confidence_decides():
    """One of two assignments of signs for each of five queries: p = 2 / 32 = 0.0625."""
    a, b = [np.full((1, 5), 0.2)], [np.asarray([[0.3, 0.4, 0.5, 0.6, 0.7]])]
    assert "b and a are not told apart" in verdicts(comparison(a, b))[0]
    assert "b beats a by 0.3000" in verdicts(comparison(a, b, confidence=0.9))[0]
    assert "difference (90 %)" in as_markdown(comparison(a, b, confidence=0.9))


def test_one_query_is_too_few_for_an_interval():
    verdict = verdicts(comparison([[[0.5]]], [[[0.75]]]))[0]
    assert verdict == "ndcg@10: b and a are not told apart: +0.2500 [too few queries], p = 1"


@pytest.mark.parametrize(("centres", "seen"), [((0.2, 0.4, 0.9), "includes 0"), ((0.7, 0.71, 0.72), "excludes 0")])
def test_several_seeds_have_a_table_and_a_verdict_that_counts_them(centres, seen):
    trained = [np.concatenate([noisy(i, centre) for i, centre in enumerate(centres)])]
    found = comparison([noisy(9, 0.3)], trained)
    row = numbers(found)
    assert f"b beats a by {row.difference:.4f}" in verdicts(found)[0]
    assert verdicts(found)[0].endswith(f"[{row.both_low:+.4f}, {row.both_high:+.4f}], which {seen}")
    turned = verdicts(comparison(trained, [noisy(9, 0.3)]))[0]
    assert "a beats b" in turned
    assert turned.endswith(f"[{row.both_low:+.4f}, {row.both_high:+.4f}], which {seen}")
    page = as_markdown(found)
    assert "## Queries and seeds" in page
    assert f"| ndcg@10 | b | a | 3 and 1 | {row.query_se:.4f} | {row.seed_se:.4f} | {row.seed_sd:.4f} |" in page
    assert "Queries and seeds" not in as_markdown(comparison([noisy(9, 0.3)], [noisy(0, 0.5)]))


def test_datasets_have_a_table_where_there_are_several():
    two = comparison([noisy(0, 0.3), noisy(1, 0.4)], [noisy(2, 0.6), noisy(3, 0.3)])
    page = as_markdown(two)
    assert "Means are unweighted over 2 datasets." in page
    row = two.pairs.set_index("dataset").loc["d2"]
    cells = f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}] | {row.wins}/{row.ties}/{row.losses}"
    assert f"| d2 | ndcg@10 | b | a | 40 | {cells} |" in page
    one = as_markdown(comparison([noisy(0, 0.3)], [noisy(2, 0.6)]))
    assert "By dataset" not in one
    assert "unweighted" not in one


def test_every_mean_carries_its_interval():
    found = comparison([noisy(0, 0.3)], [noisy(1, 0.6)])
    systems = found.systems[found.systems["overall"]]
    for row in systems.itertuples():
        cells = f"| {row.system} | 1 | 40 | {row.mean:.4f} [{row.low:.4f}, {row.high:.4f}] |"
        assert cells in as_markdown(found)


HOSTILE = ("[red]a[/red]|`x`*_<b>_\n\x1b[1m", "runs/[bold]#1\\")


def test_names_are_shown_as_they_are():
    found = comparison([noisy(0, 0.3), noisy(1, 0.3)], [noisy(2, 0.6), noisy(3, 0.6)], HOSTILE)
    page = as_markdown(found)
    assert "\\[red\\]a\\[/red\\]\\|\\`x\\`\\*\\_&lt;b>\\_" in page
    assert "\x1b" not in page
    widths = {line.replace("\\|", "").count("|") for line in page.splitlines() if "runs/" in line and line[0] == "|"}
    assert widths == {5, 9, 8}  # a cell is a cell
    console = Console(file=io.StringIO(), width=250, color_system=None)
    for table in as_tables(found):
        console.print(table)
    shown = console.file.getvalue()
    assert "[red]a[/red]|`x`*_<b>_" in shown
    assert "runs/[bold]#1\\" in shown
    assert "\x1b" not in shown
    assert not any("\x1b" in verdict or "\n" in verdict for verdict in verdicts(found))


def test_a_folder_gets_the_page_and_a_tidy_table(tmp_path):
    found = comparison([noisy(0, 0.3)], [noisy(1, 0.6)])
    write(found, tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "comparison.md", "comparison.parquet"
    ]  # fmt: skip
    assert (tmp_path / "new" / "folder" / "comparison.md").read_text(encoding="utf-8") == as_markdown(found)
    table = pd.read_parquet(tmp_path / "new" / "folder" / "comparison.parquet")
    pd.testing.assert_frame_equal(table, as_frame(found), check_dtype=False)
    pairs = table[table["against"].notna()]
    assert pairs["difference"].tolist() == found.pairs["difference"].tolist()
    assert table[table["against"].isna()]["value"].tolist() == found.systems["mean"].tolist()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"output=.*file.*: cannot be written"):
        write(comparison([noisy(0, 0.3)], [noisy(1, 0.6)]), tmp_path / "file")
