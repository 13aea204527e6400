"""Which queries a model helps and hurts, against frames worked out by hand and random ones counted another way."""

import math

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from crossrank.analysis.failures import CHANGE_COLUMNS, SLICE_COLUMNS, UNKNOWN, failures
from crossrank.analysis.failures_page import as_markdown, as_tables
from crossrank.errors import DataError
from crossrank.evaluation.significance import mean_interval

NAN = math.nan
EMPTY = pd.DataFrame()
ROWS = ["dataset", "query_id", "metric", "value", "base_value", "ceiling", "first_rank", "base_rank", "truncated"]
QUERIES = ["dataset", "query_id", "question", "positives", "candidates", "recall"]
SCORES = ["dataset", "query_id", "document_id", "first_stage_rank", "score", "relevant", "grade"]
DOCUMENTS = ["dataset", "document_id", "text"]
LENGTH, OVERLAP = "words of the question", "its words in a relevant document"
RANK, CUT = "first relevant rank in the first stage", "pairs cut to max_length"
MARKUP = "a | b\\| `code` <b>bold</b> &lt; [red]x[/red] *s* _u_\nnext\r\n\x1b[2J![i](http://x/y.png) $1$ ~~z~~"


def hand_worked():
    rows = pd.DataFrame(
        [
            ("a", "q1", "map", 1.0, 0.25, 1, 1, 4, 0.0),
            ("a", "q2", "map", 0.5, 1.0, 1, 2, 1, 0.5),
            ("a", "q3", "map", 0.5, 0.5, 1, 2, 2, 1.0),
            ("a", "q4", "map", 0.0, 0.0, 0, NAN, NAN, NAN),
            ("b", "q1", "map", 1.0, 0.0, 1, 1, NAN, 0.0),
            ("b", "q2", "map", 0.0625, 0.5, 1, 16, 3, 0.01),
            ("a", "q1", "mrr@10", 0.125, 0.25, 1, 1, 4, 0.0),
        ],
        columns=ROWS,
    )
    queries = pd.DataFrame(
        [
            ("a", "q1", "How high is K2?", 1, 3, 1.0),
            ("a", "q2", "k2", 1, 2, 1.0),
            ("a", "q3", "who was the first to climb the K2, and when?", 1, 2, 1.0),
            ("a", "q4", "lost", 1, 2, 0.0),
            ("b", "q1", "one two three four five", 1, 2, 0.0),
            ("b", "q2", " ".join(["word"] * 17), 1, 2, 1.0),
        ],
        columns=QUERIES,
    )
    scores = pd.DataFrame(
        [
            ("a", "q1", "d1", 1, -1.0, False, 0),
            ("a", "q1", "d2", 2, 0.5, False, 0),
            ("a", "q1", "d3", 4, 2.0, True, 1),
            ("a", "q1", "d4", 0, 1.0, True, 1),
            ("a", "q2", "d4", 2, 1.5, False, 0),
            ("a", "q2", "d2", 1, 1.0, True, 1),
            ("a", "q2", "d1", 3, 1.5, False, 0),  # ties with d4, which the first stage has before it
            ("a", "q3", "d5", 2, 0.0, True, 1),
            ("b", "q1", "d1", 0, 3.0, True, 2),
            ("b", "q2", "d1", 1, 3.0, False, 0),
            ("b", "q2", "gone", 3, 1.0, True, 1),
        ],
        columns=SCORES,
    ).astype({"score": np.float32})
    documents = pd.DataFrame(
        [
            ("a", "d1", "a first text"),
            ("a", "d2", "a second text"),
            ("a", "d3", "K2_is: HIGH"),
            ("a", "d4", "K2 is 8611 m"),
            ("a", "d5", "when it was climbed first"),
            ("b", "d1", "three, four"),
        ],
        columns=DOCUMENTS,
    )
    return rows, queries, scores, documents


def random_tables(seed, n=60):
    """Two datasets; some queries have no relevant document in the list, no known truncation or no question."""
    draws = np.random.default_rng(seed)
    levels = np.asarray([0, 0.25, 0.5, 1])
    ranks = np.asarray([1, 2, 3, 4, 10, 11, 100, 101, 5000, NAN])
    keys = [(f"set{i % 2}", f"q{i // 2}") for i in range(n)]
    values, bases, first, base = draws.choice(levels, (2, n)).tolist() + draws.choice(ranks, (2, n)).tolist()
    cut = draws.choice([0, 0.001, 0.5, 0.999, 1, NAN], n)
    rows = [(*key, "map", *rest) for key, *rest in zip(keys, values, bases, [1.0] * n, first, base, cut, strict=True)]
    words = [f"w{i}" for i in range(8)]

    def text(longest):
        return " ".join(draws.choice(words, draws.integers(0, longest)))

    queries = [(*key, text(25), 1, 3, 1.0) for key in keys if draws.random() < 0.9]
    scores = [
        (*key, f"d{draws.integers(0, 40)}-{d}", d, draws.integers(0, 3) / 2, bool(draws.random() < 0.4), 1)
        for key in keys
        for d in range(4)
        if draws.random() < 0.8
    ]
    documents = [(s, f"d{i}-{d}", text(6)) for s in ("set0", "set1") for i in range(38) for d in range(4)]
    parts = ((rows, ROWS), (queries, QUERIES), (scores, SCORES), (documents, DOCUMENTS))
    return tuple(pd.DataFrame(part, columns=columns) for part, columns in parts)


def buckets(found, kind):
    return {row.bucket: row.queries for row in found.slices.itertuples() if row.slice == kind}


def test_helped_and_hurt_are_sorted_by_the_change_and_leave_out_what_did_not_change():
    found = failures(*hand_worked(), "map")
    assert list(found.helped.columns) == list(found.hurt.columns) == CHANGE_COLUMNS
    columns = ["dataset", "query_id", "value", "base_value", "change", "base_rank", "first_rank"]
    assert found.helped[columns].iloc[0].tolist()[:5] == ["b", "q1", 1.0, 0.0, 1.0]
    assert math.isnan(found.helped["base_rank"][0])
    assert found.helped[columns].iloc[1:].to_numpy().tolist() == [["a", "q1", 1.0, 0.25, 0.75, 4, 1]]
    assert found.hurt[columns].to_numpy().tolist() == [
        ["a", "q2", 0.5, 1.0, -0.5, 1, 2],
        ["b", "q2", 0.0625, 0.5, -0.4375, 3, 16],
    ]
    assert found.counts[:3] == (2, 2, 2)


def test_texts_are_of_the_best_ranked_relevant_and_other_document():
    found = failures(*hand_worked(), "map")
    texts = ["question", "relevant", "other"]
    assert found.helped[texts].to_numpy().tolist() == [
        ["one two three four five", "three, four", ""],
        ["How high is K2?", "K2_is: HIGH", "a second text"],
    ]
    assert found.hurt[texts].to_numpy().tolist() == [
        ["k2", "a second text", "K2 is 8611 m"],
        [" ".join(["word"] * 17), "", "three, four"],
    ]


def test_only_the_named_metric_counts():
    found = failures(*hand_worked(), "mrr@10")
    assert found.helped.empty
    assert found.hurt["query_id"].tolist() == ["q1"]
    assert found.counts == (0, 1, 0, 1, 0, 0, 0)


def test_moves_are_a_crosstab_in_a_fixed_order():
    found = failures(*hand_worked(), "map")
    order = ["1", "2-3", "4-10", "11-100", "not in the list"]
    assert list(found.moves.index) == list(found.moves.columns) == order
    assert found.moves.to_numpy().tolist() == [
        [0, 1, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 1],
    ]
    assert found.counts[3:] == (2, 2, 1, 1)


def test_a_rank_beyond_100_has_its_own_bucket_only_where_one_occurs():
    rows, *rest = hand_worked()
    found = failures(rows.replace({"first_rank": {16: 101}}), *rest, "map")
    assert found.moves.loc["2-3", "101+"] == 1
    assert list(found.moves.index) == list(found.moves.columns)


def test_the_edges_of_the_ranks():
    ranks = {1: "1", 2: "2-3", 3: "2-3", 4: "4-10", 10: "4-10", 11: "11-100", 100: "11-100", 101: "101+"}
    for rank, bucket in ranks.items():
        rows = pd.DataFrame([("a", "q", "map", 0.5, 0.5, 1.0, NAN, rank, 0.0)], columns=ROWS)
        assert failures(rows, EMPTY, EMPTY, EMPTY, "map").moves.loc[bucket, "not in the list"] == 1


def test_slices_put_each_query_into_its_bucket():
    """Overlaps: a's q1 high, is, k2 of 4 words; q2 none of 1; q3 first, was, when of 9; b's q1 four, three of 5."""
    found = failures(*hand_worked(), "map")
    assert list(found.slices.columns) == SLICE_COLUMNS
    assert buckets(found, LENGTH) == {"1-4": 3, "5-8": 1, "9-16": 1, "17+": 1}
    assert buckets(found, OVERLAP) == {"0-25 %": 1, "25-50 %": 2, "75-100 %": 1, UNKNOWN: 2}
    assert buckets(found, RANK) == {"1": 1, "2-3": 2, "4-10": 1, "not in the list": 2}
    assert buckets(found, CUT) == {"none": 2, "some": 2, "all": 1, UNKNOWN: 1}
    assert [bucket for kind, bucket in found.slices[["slice", "bucket"]].to_numpy() if kind == CUT] == [
        "none", "some", "all", UNKNOWN,
    ]  # fmt: skip


def test_a_slice_has_the_intervals_of_its_queries_and_a_single_query_none():
    table = failures(*hand_worked(), "map").slices.set_index(["slice", "bucket"])
    row = table.loc[(RANK, "2-3")]
    assert tuple(row[["value", "low", "high"]]) == mean_interval([0.5, 0.0625], 0, 1)
    assert tuple(row[["change", "change_low", "change_high"]]) == mean_interval([0.0, -0.4375], -1, 1)
    alone = table.loc[(RANK, "4-10")]
    assert (alone["value"], alone["change"]) == (1.0, 0.75)
    assert alone[["low", "high", "change_low", "change_high"]].isna().all()


def test_ties_go_by_dataset_and_query_and_the_count_is_kept():
    keys = [("b", "q1"), ("a", "q2"), ("a", "q10")]
    tiny = [0.1 + 0.2, 0.3, 0.3]  # 0.30000000000000004 is no larger gain
    rows = pd.DataFrame(
        [(*key, "map", value, 0.0, 1.0, 1, 2, 0.0) for key, value in zip(keys, tiny, strict=True)], columns=ROWS
    )
    found = failures(rows, EMPTY, EMPTY, EMPTY, "map", count=2)
    assert found.helped[["dataset", "query_id"]].to_numpy().tolist() == [["a", "q10"], ["a", "q2"]]
    assert found.counts.helped == 3


def test_a_difference_of_the_last_bit_is_no_change():
    rows = pd.DataFrame([("a", "q", "map", 0.1 + 0.2, 0.3, 1.0, 1, 1, 0.0)], columns=ROWS)
    found = failures(rows, EMPTY, EMPTY, EMPTY, "map")
    assert found.helped.empty
    assert found.counts.unchanged == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_does_not_matter(seed):
    tables = random_tables(seed)
    shuffled = [table.sample(frac=1, random_state=seed + 1) for table in tables]
    one, other = failures(*tables, "map"), failures(*shuffled, "map")
    for name in ("helped", "hurt", "moves", "slices"):
        assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    assert as_markdown(one) == as_markdown(other)


@pytest.mark.parametrize("seed", range(5))
def test_every_query_is_counted_once_and_bucket_means_make_up_the_mean(seed):
    rows, *rest = random_tables(seed)
    found = failures(rows, *rest, "map", count=1000)
    assert found.moves.to_numpy().sum() == sum(found.counts[:3]) == sum(found.counts[3:]) == len(rows)
    assert (len(found.helped), len(found.hurt)) == found.counts[:2]
    assert found.counts.up == (rows["first_rank"].fillna(math.inf) < rows["base_rank"].fillna(math.inf)).sum()
    assert found.slices["slice"].nunique() == 5
    for _, slices in found.slices.groupby("slice"):
        assert slices["queries"].sum() == len(rows)
        assert np.average(slices["value"], weights=slices["queries"]) == pytest.approx(rows["value"].mean())
        change = (rows["value"] - rows["base_value"]).mean()
        assert np.average(slices["change"], weights=slices["queries"]) == pytest.approx(change)


@pytest.mark.parametrize("seed", range(3))
def test_texts_and_overlaps_of_random_tables_are_those_found_query_by_query(seed):
    rows, queries, scores, documents = random_tables(seed)
    found = failures(rows, queries, scores, documents, "map", count=1000)
    texts = {(d.dataset, d.document_id): d.text for d in documents.itertuples()}
    counted = dict.fromkeys(["0-25 %", "25-50 %", "50-75 %", "75-100 %", UNKNOWN], 0)
    best = {}
    for row in rows.itertuples():
        mine = scores[(scores["dataset"] == row.dataset) & (scores["query_id"] == row.query_id)].to_dict("records")
        mine.sort(key=lambda pair: (-pair["score"], pair["first_stage_rank"] or 1000))
        parts = [[texts.get((row.dataset, p["document_id"])) for p in mine if p["relevant"] == kind] for kind in (1, 0)]
        best[row.dataset, row.query_id] = [part[0] if part and part[0] else "" for part in parts]
        asked = queries[(queries["dataset"] == row.dataset) & (queries["query_id"] == row.query_id)]["question"]
        words = set(asked.iloc[0].split()) if len(asked) else set()
        shares = [len(words & set(text.split())) / len(words) for text in parts[0] if text is not None and words]
        counted[list(counted)[min(int(max(shares) * 4), 3)] if shares else UNKNOWN] += 1
    assert buckets(found, OVERLAP) == {bucket: n for bucket, n in counted.items() if n}
    for row in pd.concat([found.helped, found.hurt]).itertuples():
        assert [row.relevant, row.other] == best[row.dataset, row.query_id]


EMPTIES = {
    "without columns": [EMPTY] * 3,
    "with columns": [pd.DataFrame(columns=columns) for columns in (QUERIES, SCORES, DOCUMENTS)],
    "of numbers": [pd.DataFrame(columns=columns, dtype=float) for columns in (QUERIES, SCORES, DOCUMENTS)],
}


@pytest.mark.parametrize("empty", EMPTIES.values(), ids=EMPTIES)
def test_empty_tables_leave_out_what_needs_them(empty):
    rows, *rest = hand_worked()
    full, found = failures(rows, *rest, "map"), failures(rows, *empty, "map")
    assert_frame_equal(found.moves, full.moves)
    assert set(found.slices["slice"]) == {"all queries", RANK, CUT}
    assert found.helped["query_id"].tolist() == full.helped["query_id"].tolist()
    assert set(found.helped[["question", "relevant", "other"]].to_numpy().flat) == {""}
    assert "| b | q1 |  | 0.0000 to 1.0000 (+1.0000) | - to 1 |  |  |" in as_markdown(found)
    assert len(as_tables(found)) == 4


@pytest.mark.parametrize("missing", range(3))
def test_any_one_table_may_be_empty(missing):
    rows, *rest = hand_worked()
    rest[missing] = EMPTY
    found = failures(rows, *rest, "map")
    assert OVERLAP not in set(found.slices["slice"])
    assert (LENGTH in set(found.slices["slice"])) == (missing > 0)
    assert as_markdown(found)


def test_rows_without_the_columns_of_ranks_say_unknown():
    rows = hand_worked()[0].drop(columns=["ceiling", "first_rank", "base_rank", "truncated"])
    found = failures(rows, EMPTY, EMPTY, EMPTY, "map")
    assert found.moves.loc[UNKNOWN, UNKNOWN] == found.moves.to_numpy().sum() == 6
    assert found.counts == (2, 2, 2, 0, 0, 0, 0)
    assert set(found.slices["slice"]) == {"all queries"}
    assert as_markdown(found)


def test_without_a_first_stage_nothing_is_compared():
    rows, *rest = hand_worked()
    found = failures(rows.assign(base_value=NAN, base_rank=NAN), *rest, "map")
    assert found.counts == (0,) * 7
    assert found.helped.empty
    assert found.hurt.empty
    assert found.moves.loc[UNKNOWN].sum() == 6
    assert found.slices["change"].isna().all()
    assert as_markdown(found).splitlines()[-1].endswith(" | - |")


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(DataError, match=r"no metric 'ndcg@5' was evaluated; there are: map, mrr@10"):
        failures(*hand_worked(), "ndcg@5")


@pytest.mark.parametrize("rows", [EMPTY, pd.DataFrame(columns=ROWS)])
def test_no_rows_are_an_error(rows):
    with pytest.raises(DataError, match="no query was evaluated"):
        failures(rows, EMPTY, EMPTY, EMPTY, "map")


def test_a_count_below_one_is_an_error():
    with pytest.raises(ValueError, match="count must be at least 1 query, got 0"):
        failures(*hand_worked(), "map", count=0)


@pytest.mark.parametrize("table", [1, 3])
def test_a_query_or_document_that_stands_twice_does_not_multiply_rows(table):
    tables = list(hand_worked())
    tables[table] = pd.concat([tables[table]] * 2)
    with pytest.raises(pd.errors.MergeError):
        failures(*tables, "map")
