import pytest
from plotly.graph_objects import Figure

from crossrank.pages.page_parts import Cell, Chapter, Fold, Grid, Page, Plot, Text, cell, linked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5040 [0.4582, 0.5516]", Cell("0.5040", "[0.4582, 0.5516]", 0.504)),
        ("+0.0609 (over 0.4432)", Cell("+0.0609", "(over 0.4432)", 0.0609)),
        ("-0.5 [too few queries]", Cell("-0.5", "[too few queries]", -0.5)),
        ("26,100", Cell("26,100", "", 26100.0)),
        ("1.5e-05", Cell("1.5e-05", "", 1.5e-5)),
        ("50%", Cell("50%", "", 50.0)),
        ("12 ms", Cell("12 ms", "", 12.0)),
        ("-", Cell("-")),
        ("1 to 3", Cell("1 to 3")),
        ("4-10", Cell("4-10")),
        ("8623b63e", Cell("8623b63e")),
        ("1e5 <b>", Cell("1e5 <b>")),
    ],
)
def test_a_number_is_told_from_a_word_and_from_its_interval(text, expected):
    assert cell(text) == expected


def test_a_column_is_numeric_if_all_of_it_is_numbers_or_dashes():
    rows = [["a", "1", "-", "1"], ["2", "-", "-", "two"]]
    assert Grid(["w", "x", "y", "z"], rows).numeric == [False, True, False, False]
    assert Grid(["x", "y"], []).numeric == [False, False]


def test_a_link_stays_beside_the_page_whatever_a_folder_is_called():
    assert linked("job", "a b", "report.html").href == "./a%20b/report.html"
    assert linked("job", "javascript:alert(1)").href == "./javascript%3Aalert%281%29"
    assert linked("job", "../x").href == "./..%2Fx"


def test_figures_are_found_in_folds_too():
    first, second = Plot(Figure(), "one"), Plot(Figure(), "two")
    page = Page("p", "", [Chapter("a", [Text("x"), first]), Chapter("b", [Fold("f", [Fold("g", [second])])])])
    assert [plot.title for plot in page.plots] == ["one", "two"]


def test_an_anchor_is_a_word():
    assert Chapter("How it went: 100 %!", []).anchor == "how-it-went"
