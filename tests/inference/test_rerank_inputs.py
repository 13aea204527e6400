import json

import pytest

from crossrank.errors import ConfigError, DataError
from crossrank.inference.rerank_inputs import Asked, RerankInputs, Totals, refuse_unless_one

DOCUMENTS = {"d1": "one", "d2": "two", "d3": "three"}
RUN = """q1 Q0 d1 7 0.5 x
q1 Q0 d3 1 0.9 x
q1 Q0 d2 2 0.5 x
q2 Q0 d2 1 -3 x
"""


@pytest.fixture
def inputs(tmp_path):
    """A maker of inputs, by the content of the files."""
    (tmp_path / "beir").mkdir()
    for name, texts in (("corpus", DOCUMENTS), ("queries", {"q1": "first", "q2": "second"})):
        rows = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
        (tmp_path / "beir" / f"{name}.jsonl").write_text("".join(rows))

    def make(run=None, candidates=None, corpus=True, depth=10, queries=False):
        for name, content in (("r.trec", run), ("c.jsonl", candidates)):
            if content is not None:
                text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
                (tmp_path / name).write_text(text)
        return RerankInputs(
            None if run is None else tmp_path / "r.trec", None if candidates is None else tmp_path / "c.jsonl",
            tmp_path / "beir" if queries else None, tmp_path / "beir" if corpus else None, depth, True,
            tmp_path / "cache",
        )  # fmt: skip

    return make


def test_a_run_is_ordered_as_trec_eval_orders_it_and_has_its_texts(inputs):
    made = inputs(RUN)
    assert made.check() == Totals(2, 4)
    first, second = made.asked()
    assert first == Asked("q1", "first", ["d3", "d2", "d1"], ["three", "two", "one"])
    assert second == Asked("q2", "second", ["d2"], ["two"])
    assert list(made.asked(1)) == [second]
    assert list(made.asked(2)) == []


def test_the_first_rerank_k_of_each_list_are_taken(inputs):
    made = inputs(RUN, depth=2)
    assert made.check() == Totals(2, 3)
    assert [one.ids for one in made.asked()] == [["d3", "d2"], ["d2"]]
    made = inputs(candidates=[{"query": "a", "documents": ["x", "y", "z"]}], corpus=False, depth=2)
    assert next(made.asked()) == Asked("1", "a", ["0", "1"], ["x", "y"])


def test_candidates_may_hold_their_texts_or_ids_or_both(inputs):
    rows = [
        {"query": "a", "documents": ["x", "y"]},
        {"query": "b", "query_id": "q9", "documents": ["x", "y"], "ids": ["k", 5]},
        {"query": "c", "query_id": 7, "ids": ["d2", "d1"]},
        {"query_id": "q2", "ids": ["d3"]},
    ]
    made = inputs(candidates=rows, queries=True)
    assert made.check() == Totals(4, 7)
    assert list(made.asked()) == [
        Asked("1", "a", ["0", "1"], ["x", "y"]),
        Asked("q9", "b", ["k", "5"], ["x", "y"]),
        Asked("7", "c", ["d2", "d1"], ["two", "one"]),
        Asked("q2", "second", ["d3"], ["three"]),
    ]


def test_the_identity_is_that_of_the_content(inputs):
    first = inputs(RUN).identity()
    assert first == inputs(RUN).identity()
    assert set(first) == {"run", "queries", "corpus", "rerank_k"}
    other = {key for key, value in inputs(RUN + "q3 Q0 d1 1 1 x\n", depth=3).identity().items() if value != first[key]}
    assert other == {"run", "rerank_k"}
    assert inputs(candidates=[{"query": "a", "documents": ["x"]}], corpus=False).identity()["corpus"] is None


@pytest.mark.parametrize(("run", "message"), [
    ("q1 Q0 d1 1 x\n", "row 1: 6 columns are wanted"),
    ("", "holds no rows"),
    (RUN + "q1 Q0 d1 1 1 x\n", "row 5: the lines of query 'q1' must stand together"),
    (RUN + "q2 Q0 d2 1 1 x\n", "row 5: ranks the document 'd2' of query 'q2' a second time"),
    (RUN + "q9 Q0 d2 1 1 x\n", "row 5: names the query 'q9', which is not in .*beir"),
    (RUN + "q2 Q0 d9 1 1 x\n", "row 4: names the document 'd9', which is not in .*beir"),
    (RUN + "q2 Q0 d1 1 nan x\n", "row 5: 'score' must be a number"),
])  # fmt: skip
def test_a_broken_run_is_refused_by_row(run, message, inputs):
    with pytest.raises(DataError, match=message):
        inputs(run).check()


@pytest.mark.parametrize(("row", "message"), [
    ({"documents": ["x"]}, "row 2: no 'query' and no 'query_id'; the columns are: documents"),
    ({"query": " ", "documents": ["x"]}, "row 2: 'query' must be a text, got ' '"),
    ({"query": 5, "documents": ["x"]}, "row 2: 'query' must be a text, got 5"),
    ({"query": "a"}, "row 2: 'documents' or 'ids' must be a list that is not empty, got None"),
    ({"query": "a", "documents": []}, r"row 2: .* a list that is not empty, got \[\]"),
    ({"query": "a", "documents": "xyz"}, "row 2: .* a list that is not empty, got 'xyz'"),
    ({"query": "a", "documents": ["x", 3.5]}, r"row 2: 'documents' must be texts, got 3\.5"),
    ({"query": "a", "documents": ["x", None]}, "row 2: 'documents' must be texts, got None"),
    ({"query": "a", "documents": ["x"], "ids": ["a", "b"]}, "row 2: 'documents' and 'ids' must be lists of one length"),
    ({"query": "a", "ids": ["d1"]}, "row 2: holds no text of the document 'd1'; give corpus=FILE"),
    ({"query_id": "q1", "documents": ["x"]}, "row 2: holds no text of the query 'q1'; give queries=FILE"),
    ({"query": "a", "documents": ["x", "y"], "ids": ["k", "k"]}, "row 2: ranks the document 'k' of query '2' a second"),
    ({"query": "a", "documents": ["x"], "ids": ["a b"]}, "row 2: the id 'a b' has blanks or is empty"),
    ({"query": "a", "query_id": "", "documents": ["x"]}, "row 2: the id '' has blanks or is empty"),
    ({"query": "a", "query_id": "1", "documents": ["x"]}, "row 2: the query '1' stands here a second time"),
])  # fmt: skip
def test_a_broken_table_is_refused_by_row(row, message, inputs):
    with pytest.raises(DataError, match=message):
        inputs(candidates=[{"query": "a", "documents": ["x"]}, row], corpus=False).check()


def test_what_is_reranked_is_one_thing_and_has_texts(inputs, tmp_path):
    with pytest.raises(ConfigError, match="one of query, run and candidates is to be reranked, got none of them"):
        refuse_unless_one(query=None, run=None, candidates=None)
    with pytest.raises(ConfigError, match="got query and run"):
        refuse_unless_one(query="a", run="b", candidates=None)
    with pytest.raises(ConfigError, match="got run and candidates"):
        inputs(RUN, [{"query": "a", "documents": ["x"]}])
    with pytest.raises(ConfigError, match="run holds ids alone: give corpus=FILE and queries=FILE"):
        inputs(RUN, corpus=False)
    with pytest.raises(ConfigError, match="run holds ids alone"):
        RerankInputs(tmp_path / "r", None, None, tmp_path / "beir" / "corpus.jsonl", 10, True, tmp_path)
