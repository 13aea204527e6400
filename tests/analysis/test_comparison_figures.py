"""What the figures of a comparison draw, read back from the axes."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from crossrank.analysis.alignment import Aligned
from crossrank.analysis.compare import Resampling, compare
from crossrank.analysis.comparison_figures import differences, query_scatter, system_means, wins_and_losses
from crossrank.errors import DataError

OLD = [0.0, 0.25, 0.5, 0.5, 1.0, 0.25, 0.25, 0.0]
NEW = [1.0, 0.75, 1.0, 1.0, 0.5, 0.75, 0.75, 0.5]  # differences: 1, 6 times 0.5, -0.5
SAME = [value + 1e-12 for value in OLD]


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.fixture(scope="module")
def aligned():
    """Three systems, two metrics, of which the second is half the first; two trainings of the second system."""
    trainings = ([OLD], [NEW, NEW], [SAME])
    tables = [np.asarray(values)[:, :, None] * [1.0, 0.5] for values in trainings]
    return Aligned(("old", "new", "same"), ("map", "half"), ("d",), tuple((table,) for table in tables))


@pytest.fixture(scope="module")
def found(aligned):
    return compare(aligned, resampling=Resampling(resamples=500))


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_means_are_points_with_the_intervals_of_the_table_the_first_system_on_top(found, axes):
    system_means(found, "map", axes)
    bars, points = axes.collections
    assert labels(axes) == ["same", "new", "old"]
    means = [float(np.mean(values)) for values in (SAME, NEW, OLD)]
    np.testing.assert_allclose(points.get_offsets(), np.column_stack([means, range(3)]))
    rows = found.systems[found.systems["overall"] & (found.systems["metric"] == "map")].set_index("system")
    ends = [path.vertices[:, 0] for path in bars.get_paths()]
    np.testing.assert_allclose(ends, rows.loc[labels(axes), ["low", "high"]])
    assert [text.get_text() for text in axes.texts] == [f"{mean:.4f}" for mean in means]
    assert axes.get_xlabel() == "map (95 % interval over 8 queries)"


def test_differences_carry_the_corrected_p_and_are_black_where_it_tells_apart(found, axes):
    """The differences are 1, six times 0.5 and -0.5, in sum 3.5.

    Of the 256 assignments of signs, those are as extreme that leave all positive or flip one of the seven 0.5, and
    these eight mirrored.
    """
    differences(found, "map", axes)
    _, points = axes.collections
    assert labels(axes) == ["same\nminus new", "same\nminus old", "new\nminus old"]
    np.testing.assert_allclose(points.get_offsets()[:, 0], [-0.4375, 0.0, 0.4375])
    rows = found.overall[found.overall["metric"] == "map"].iloc[::-1]
    told = [f"{row.difference:+.4f}, p = {row.p_holm:.2g}" for row in rows.itertuples()]
    assert [text.get_text() for text in axes.texts] == told
    assert rows["p"].tolist()[::2] == [16 / 256, 16 / 256]
    assert all(same_color(color, "darkgrey") for color in points.get_facecolors())
    assert "6 tests" in axes.get_title()


def test_a_pair_that_is_told_apart_is_black(axes):
    better = np.linspace(0.1, 0.4, 12)
    values = [np.full((1, 12, 1), 0.5), (0.5 + better)[None, :, None]]
    found = compare(Aligned(("a", "b"), ("map",), ("d",), tuple((table,) for table in values)))
    differences(found, "map", axes)
    assert found.overall["p_holm"].iloc[0] == 2 / 2**12
    assert same_color(axes.collections[1].get_facecolors()[0], "black")


def test_wins_ties_and_losses_are_counted_from_left_to_right(found, axes):
    wins_and_losses(found, "half", axes)
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [[1, 0, 7], [0, 8, 0], [7, 0, 1]]  # of same - new, same - old, new - old
    assert [bar.get_x() for bar in axes.containers[2]] == [1, 8, 7]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["wins", "ties", "losses"]


def test_queries_of_one_place_share_a_dot(aligned, axes):
    query_scatter(aligned, "map", "new", "old", axes)
    (dots,) = axes.collections
    drawn = dict(zip(map(tuple, dots.get_offsets().tolist()), dots.get_sizes() / 16, strict=True))
    assert drawn == {(0.0, 0.5): 1, (0.0, 1.0): 1, (0.25, 0.75): 3, (0.5, 1.0): 2, (1.0, 0.5): 1}
    assert axes.get_xlabel() == "map of old"
    assert axes.get_title() == "7 queries above the line, 1 below, 0 on it"
    assert axes.get_ylabel() == "map of new"


def test_of_many_queries_the_largest_dot_stays_one_and_the_smallest_can_be_seen(axes):
    values = np.zeros((1, 2000, 1))
    values[0, 0] = 1.0
    query_scatter(Aligned(("a", "b"), ("map",), ("d",), ((values,), (values,))), "map", "b", "a", axes)
    assert axes.collections[0].get_sizes().tolist() == pytest.approx([1600, 4])


def test_what_was_not_compared_is_an_error(aligned, found, axes):
    with pytest.raises(DataError, match="'mapp' was not compared; there are: map, half"):
        system_means(found, "mapp", axes)
    with pytest.raises(DataError, match="'older' was not compared; there are: old, new, same"):
        query_scatter(aligned, "map", "older", "old", axes)
