import re

import pytest

from crossrank.data.list_formats import UnusableRow, layout_of
from crossrank.errors import DataError


def read(row, wanted="auto", encoded=False, **named):
    return layout_of(list(row), wanted, named).read(row, encoded)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["query", "answer"], "pairs"),
        (["id", "anchor", "positive", "more"], "pairs"),
        (["question", "positive", "negative"], "triplets"),
        (["anchor", "positive", "negative_1", "negative_2"], "ntuples"),
        (["query", "docs", "labels"], "labelled_lists"),
        (["query", "documents", "scores"], "scored_lists"),
        (["question", "answer", "label"], "labelled_lists"),  # sentence-transformers' labelled pairs
        (["query", "document", "score"], "scored_lists"),
    ],
)
def test_the_columns_say_what_a_file_is(columns, kind):
    layout = layout_of(columns, "auto", {})
    assert layout.format == kind
    assert layout == layout_of(columns, kind, {})
    assert layout.scored == (kind == "scored_lists")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a", "b"], "the columns are: a, b; expected are question with positive (pairs), positive and negative (trip"),
        (["query", "negative"], "the columns are: query, negative; expected are"),
        (["answer", "negative"], "the columns are: answer, negative; expected are"),
        ([], "the columns are: ; expected are"),
        (["query", "documents"], "the columns are: query, documents; beside documents one of labels and scores is exp"),
        (["query", "docs", "labels", "scores"], "beside documents one of labels and scores is expected"),
        (["query", "positive", "negative", "score"], "'score' beside negatives may mean anything: name the format"),
    ],
)
def test_columns_that_say_nothing_certain_are_listed_with_what_is_expected(columns, message):
    with pytest.raises(DataError, match=re.escape(message)):
        layout_of(columns, "auto", {})


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("triplets", ["query", "answer"], "triplets need columns question, positive, negative; no negative; the col"),
        ("ntuples", ["query", "answer"], "ntuples need columns question, positive, negative; no negative"),
        ("pairs", ["id", "text"], "pairs need columns question, positive; no question and no positive; the columns a"),
        ("scored_lists", ["query", "docs", "labels"], "need columns question, documents, scores; no scores"),
        ("labelled_lists", ["query", "labels"], "no documents; the columns are: query, labels"),
    ],
)
def test_a_named_format_says_which_columns_it_lacks(kind, columns, message):
    with pytest.raises(DataError, match=re.escape(message)):
        layout_of(columns, kind, {})


def test_columns_can_be_named_and_a_wrong_name_lists_the_right_ones():
    row = {"q": "why", "yes": "so", "no_1": "thus", "no_2": "else", "positive": "ignored"}
    assert read(row, question="q", positive="yes", negative="no") == ("why", ["so", "thus", "else"], [1, 0, 0])
    with pytest.raises(DataError, match="no column 'Q'; the columns are: q, yes"):
        layout_of(list(row), "auto", {"question": "Q"})
    with pytest.raises(DataError, match="no column 'nope'"):
        layout_of(list(row), "auto", {"question": "q", "negative": "nope"})


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"query": "q", "answer": "a"}, (["a"], [1])),
        ({"query": "q", "answer": ["a", "b"]}, (["a", "b"], [1, 1])),
        ({"query": "q", "positive": "a", "negative": "n"}, (["a", "n"], [1, 0])),
        ({"query": "q", "positive": ["a", "b"], "negative": ["n", "m"]}, (["a", "b", "n", "m"], [1, 1, 0, 0])),
        ({"query": "q", "positive": "a", "negative_10": "x", "negative_2": "n"}, (["a", "n", "x"], [1, 0, 0])),
        ({"query": "q", "positive": "a", "negative_1": None, "negative_2": "n"}, (["a", "n"], [1, 0])),
        ({"query": "q", "docs": ["a", "b"], "labels": [0, 3]}, (["a", "b"], [0, 3])),
        ({"query": "q", "docs": ["a", "b"], "labels": [True, False]}, (["a", "b"], [1, 0])),
        ({"query": "q", "docs": ["a", "b"], "scores": [-1.5, 7]}, (["a", "b"], [-1.5, 7])),
        ({"query": "q", "document": "a", "label": 0.25}, (["a"], [0.25])),
    ],
)
def test_a_row_gives_a_question_its_documents_and_their_labels(row, wanted):
    assert read(row) == ("q", *wanted)


def test_scores_beside_negatives_are_of_the_documents_in_the_columns_order():
    row = {"query": "q", "answer": "a", "negative_1": "n", "negative_2": "m", "score": [9.0, 2.5, -1]}
    assert read(row, "scored_lists") == ("q", ["a", "n", "m"], [9, 2.5, -1])
    assert read(row, "ntuples") == ("q", ["a", "n", "m"], [1, 0, 0])


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"query": "q", "docs": '["a, b", "c"]', "labels": "[1, 0]"}, (["a, b", "c"], [1, 0])),
        ({"query": "q", "docs": "[1] is a footnote", "labels": "1"}, (["[1] is a footnote"], [1])),
        ({"query": "[q]", "answer": '["a", "b"]'}, (['["a", "b"]'], [1])),
        ({"query": "q", "positive": "[a", "negative": "[]", "scores": "[0.5, 1]"}, (["[a", "[]"], [0.5, 1])),
        ({"query": "q", "positive": "a", "negative_1": "n", "negative_2": ""}, (["a", "n"], [1, 0])),
    ],
)
def test_in_a_csv_a_list_is_json_and_everything_else_a_text(row, wanted):
    kind = "scored_lists" if "scores" in row else "auto"
    assert read(row, kind, encoded=True) == (row["query"], *wanted)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": " ", "answer": "a"}, "'query' is empty or not a text"),
        ({"query": ["q"], "answer": "a"}, "'query' is empty or not a text"),
        ({"query": "q", "answer": 3}, "'answer' is empty or not a text"),
        ({"query": "q", "answer": []}, "'answer' is empty or not a text"),
        ({"query": "q", "answer": ["a", None]}, "'answer' is empty or not a text"),
        ({"query": "q", "answer": "half \ud800"}, "'answer' is empty or not a text"),
        ({"query": "q", "answer": "a", "negative": None}, "'negative' is empty or not a text"),
        ({"query": "q", "answer": "a", "negative_1": None}, "no negative; every row needs one"),
        ({"query": "q", "answer": "a", "negative_1": 3}, "'negative_1' is empty or not a text"),
        (
            {"query": "q", "docs": ["a", "b"], "labels": [1]},
            "'labels' must be a number for each document, of which the",
        ),
        ({"query": "q", "docs": ["a"], "labels": ["1"]}, "must be a number for each document, of which there are 1: ["),
        ({"query": "q", "docs": ["a"], "labels": None}, "must be a number for each document"),
        ({"query": "q", "docs": ["a"], "labels": [float("nan")]}, "must be a number for each document"),
        ({"query": "q", "docs": ["a"], "scores": [10**400]}, "must be a number for each document"),
        ({"query": "q", "docs": ["a"], "scores": [1e39]}, "must be a number for each document"),
        ({"query": "q", "docs": ["a"], "scores": ["x" * 99]}, "x..."),
        ({"query": "q", "docs": ["a"], "labels": [-1]}, "'labels' holds -1; a label is at least 0"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row, message):
    with pytest.raises(UnusableRow, match=re.escape(message)):
        read(row)


@pytest.mark.parametrize("value", ["[1, 0", "[" * 100_000, "[1e999]", "[1, 2]", "one", ""])
def test_a_csv_whose_list_is_broken_says_why(value):
    with pytest.raises(UnusableRow, match=r"'labels' (begins as a JSON list and is none|must be a number)"):
        read({"query": "q", "docs": '["a"]', "labels": value}, encoded=True)


def test_a_column_that_only_some_rows_have_is_named():
    layout = layout_of(["query", "answer"], "auto", {})
    with pytest.raises(DataError, match="no column 'answer'; the columns are: query, response"):
        layout.read({"query": "q", "response": "a"}, False)
