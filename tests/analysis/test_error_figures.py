"""What the figures of failures draw, read back from the axes."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from crossrank.analysis.error_figures import change_histogram, rank_movement, slice_changes
from crossrank.analysis.failures import SLICE_COLUMNS, Counts, Failures
from crossrank.errors import DataError

NAN = float("nan")


@pytest.fixture
def axes():
    return Figure().subplots()


def found():
    names = ["1", "2-3", "not in the list", "unknown"]
    moves = pd.DataFrame([[3, 0, 0, 0], [5, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]], index=names, columns=names)
    slices = [
        ("all queries", "all", 11, 0.5, 0.4, 0.6, 0.1, 0.05, 0.15),
        ("words", "1-4", 10, 0.5, 0.4, 0.6, 0.2, 0.1, 0.3),
        ("words", "5-8", 1, 0.5, NAN, NAN, -0.9, NAN, NAN),
        ("words", "9-16", 1, 0.5, NAN, NAN, NAN, NAN, NAN),
        ("words", "17+", 2, 0.5, 0.0, 1.0, 0.1, -1.0, 1.0),
        ("words", "unknown", 2, 0.5, 0.4, 0.6, 0.0, 0.0, 0.0),
    ]
    nothing = pd.DataFrame()
    counts = Counts(6, 3, 2, up=5, down=0, same=4, absent=2)
    return Failures("map", counts, nothing, nothing, moves, pd.DataFrame(slices, columns=SLICE_COLUMNS))


def test_changes_are_counted_by_size_and_coloured_by_sign(axes):
    """Bins are 2/41 wide and the middle one is centred on 0."""
    rows = pd.DataFrame({"metric": "map", "change": [1.0, 0.5, 0.5, 0.0, 0.01, -0.01, -0.03, -1.0, NAN]})
    change_histogram(rows, axes)
    bars = {round(bar.get_x() + bar.get_width() / 2, 3): bar for bar in axes.patches}
    assert len(bars) == 41
    counts = {centre: bar.get_height() for centre, bar in bars.items() if bar.get_height()}
    assert counts == {-0.976: 1, -0.049: 1, 0.0: 3, 0.488: 2, 0.976: 1}
    for centre, bar in bars.items():
        color = "grey" if centre == 0 else "tab:red" if centre < 0 else "tab:green"
        assert same_color(bar.get_facecolor(), color)
    (mean,) = axes.lines
    assert mean.get_xdata()[0] == pytest.approx(0.97 / 8)
    assert axes.get_title() == "4 helped, 3 hurt, 1 as before"
    with pytest.raises(DataError, match="no query has a value of the first stage"):
        change_histogram(rows.assign(change=NAN), axes)


def test_the_map_of_ranks_has_the_counts_of_known_ranks(axes):
    rank_movement(found(), axes)
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), [[3, 0, 0], [5, 1, 0], [0, 0, 2]])
    assert [text.get_text() for text in axes.texts] == ["3", "·", "·", "5", "1", "·", "·", "·", "2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2-3", "not in the list"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rank after training", "rank in the first stage")
    assert axes.get_title() == "5 up, 0 down, 4 unmoved, 2 in neither list"
    assert [patch.get_xy() for patch in axes.patches] == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]


def test_slices_are_a_point_with_its_interval_and_those_without_a_change_are_left_out(axes):
    slice_changes(found(), axes)
    bars, points = axes.collections
    assert points.get_offsets().tolist() == [[0.1, 0], [-0.9, 1], [0.2, 2], [0.1, 3]]
    ends = [path.vertices[:, 0].tolist() for path in bars.get_paths()]
    assert ends[-2:] == [[0.1, 0.3], [0.05, 0.15]]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["words: 17+ (2)", "words: 5-8 (1)", "words: 1-4 (10)", "all queries (11)"]
    assert same_color(points.get_facecolors()[3], "black")
    assert axes.get_xlim() == pytest.approx((-0.9 - 0.06, 0.3 + 0.06))  # the two queries of 17+ do not widen it
