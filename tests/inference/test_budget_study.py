"""The grid: which cells there are, and that each holds what scoring with that length and depth gives."""

import itertools
import time

import numpy as np
import pytest
import torch
from conftest import MINILM

from crossrank.errors import DataError, ModelError
from crossrank.evaluation.budget import depth_metrics
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.inference.budget_study import (
    BudgetGrid,
    budget_markdown,
    budget_study,
    hardware,
    measured_latencies,
)
from crossrank.inference.padded import at_length
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import RandomInit

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
COLUMNS = ["dataset", "max_length", "depth", "metric", "value", "low", "high", "truncated_share", "p50_ms", "p95_ms"]
MAX_LENGTH = 160


def task(name, longest, seed, queries=4, candidates=9, **options):
    draws = np.random.default_rng(seed)
    texts = {f"d{i}": " ".join(draws.choice(WORDS, int(n))) for i, n in enumerate(draws.integers(1, longest, 30))}
    asked = {f"q{i}": " ".join(draws.choice(WORDS, 4)) for i in range(queries)}
    found = {q: list(draws.choice(sorted(texts), candidates, replace=False)) for q in asked}
    return RerankingTask(name, asked, texts, found, {q: {ids[6]: 1} for q, ids in found.items()}, **options)


@pytest.fixture(scope="module")
def scorer():
    backbone = RandomInit(MINILM, "bert", hidden_size=32, max_length=MAX_LENGTH)
    model = backbone.build(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return PairScorer(model, backbone.encoder())


TASKS = [task("short", 50, 1), task("long", 300, 2)]


@pytest.fixture(scope="module")
def study(scorer):
    scores = evaluate_tasks(TASKS, scorer).scores
    return budget_study(TASKS, scorer, scores, BudgetGrid([3, 6, 50, 100], latency_queries=2))


def test_there_is_a_row_a_dataset_length_and_depth(study):
    """No list is longer than 9; of 64, 128, 256 and 512 the first two are below the model's 160."""
    assert list(study.columns) == [*COLUMNS, "pairs_per_second"]
    cells = list(zip(study["dataset"], study["max_length"], study["depth"], strict=True))
    expected = itertools.product(["short", "long", "mean"], [64, 128, MAX_LENGTH], [0, 3, 6, 9])
    assert sorted(cells) == sorted(expected)
    assert set(study["metric"]) == {"ndcg@10"}


@pytest.mark.parametrize("length", [64, 128, MAX_LENGTH])
def test_each_cell_is_what_scoring_at_that_length_and_depth_gives(length, study, scorer):
    cut = at_length(scorer, length)
    shares = []
    for one in TASKS:
        scores = one.evaluate(cut).scores
        shares.append(cut.truncated(one.pairs).mean())
        for depth in (0, 3, 6, 9):
            chosen = study[(study.dataset == one.name) & (study.max_length == length) & (study.depth == depth)]
            assert chosen["value"].item() == pytest.approx(depth_metrics(one, scores, depth).ndcg.mean(), abs=1e-9)
            assert chosen["truncated_share"].item() == shares[-1]
    assert shares[0] <= shares[1]
    mean = study[(study.dataset == "mean") & (study.max_length == length)]
    assert mean["truncated_share"].tolist() == [pytest.approx(np.mean(shares))] * 4
    assert (mean["low"] <= mean["value"]).all()
    assert (mean["value"] <= mean["high"]).all()


def test_latency_is_of_a_length_and_depth_and_nothing_is_scored_at_depth_0(study):
    by_cell = study.groupby(["max_length", "depth"])[["p50_ms", "p95_ms", "pairs_per_second"]]
    assert (by_cell.nunique() <= 1).all(axis=None)
    first_stage = study["depth"] == 0
    assert (study.loc[first_stage, ["p50_ms", "p95_ms"]] == 0).all(axis=None)
    assert study.loc[first_stage, "pairs_per_second"].isna().all()
    assert (study.loc[~first_stage, "p50_ms"] > 0).all()
    assert (study["p95_ms"] >= study["p50_ms"]).all()
    assert (study.loc[~first_stage, "pairs_per_second"] > 0).all()


def test_lengths_that_cut_nothing_are_left_out_unless_asked_for(scorer):
    tasks = [task("tiny", 20, 3)]
    scores = evaluate_tasks(tasks, scorer).scores
    lengths = {
        asked: budget_study(tasks, scorer, scores, BudgetGrid([5], asked, 1))["max_length"].unique().tolist()
        for asked in (None, (100, 12))
    }
    assert lengths == {None: [MAX_LENGTH], (100, 12): [12, 100]}


class Clock:
    """Sleeps as a scorer of that many pairs does; counts."""

    calls, made = [], 0

    def __init__(self):
        type(self).made += 1
        self.used = False

    def __call__(self, pairs):
        assert not self.used, "a scorer that has seen a text would not tokenise it again"
        self.used = True
        self.calls.append(len(pairs))
        return np.zeros(len(pairs), np.float32)


def test_every_call_is_timed_with_a_fresh_scorer_after_one_for_warming_up(monkeypatch):
    """The clock jumps by 10, 20, ... ms at each timed call."""
    ticks = itertools.chain.from_iterable((0.0, 0.01 * i) for i in itertools.count(1))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(Clock, "calls", [])
    monkeypatch.setattr(Clock, "made", 0)
    lists = [[("q", str(i))] * size for i, size in enumerate((4, 4, 3))]
    found = measured_latencies({128: Clock}, [2, 4], lists)
    assert Clock.calls == [2, 4, *(2, 4), *(2, 4), *(2, 3)]
    assert Clock.made == len(Clock.calls)
    shallow, deep = found[128, 2], found[128, 4]  # 10, 30, 50 and 20, 40, 60 ms
    assert (shallow.p50_ms, deep.p50_ms) == (pytest.approx(30), pytest.approx(40))
    assert deep.p95_ms == pytest.approx(np.quantile([20, 40, 60], 0.95))
    assert deep.pairs_per_second == pytest.approx(11 / 0.12)


def test_the_table_has_a_row_a_length_and_depth(study, scorer):
    lines = budget_markdown(study).splitlines()
    assert len(lines) == 2 + 3 * 4
    row = study[(study.dataset == "mean") & (study.max_length == 128) & (study.depth == 6)].iloc[0]
    cells = [cell.strip() for cell in lines[2 + 4 + 2].strip("|").split("|")]
    assert cells[:4] == [
        "128", f"{row.truncated_share:.1%}", "6", f"{row.value:.4f} [{row.low:.4f}, {row.high:.4f}]"
    ]  # fmt: skip
    assert cells[4:] == [f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.pairs_per_second:.0f}"]
    assert hardware(scorer) == f"CPU, {torch.get_num_threads()} threads"


def test_a_single_query_has_no_interval(scorer):
    tasks = [task("one", 20, 3, queries=1)]
    frame = budget_study(tasks, scorer, evaluate_tasks(tasks, scorer).scores, BudgetGrid([5], [32], 1))
    assert frame[["low", "high"]].isna().all(axis=None)
    assert "too few queries" in budget_markdown(frame)


@pytest.mark.parametrize(("options", "message"), [
    ({"depths": []}, "depths must be positive"),
    ({"depths": [5, 0]}, r"depths must be positive .*, got \[5, 0\]"),
    ({"depths": [5], "lengths": [64, 7]}, r"at least 8, got \[64, 7\]"),
    ({"depths": [5], "lengths": []}, "at least 8"),
    ({"depths": [5], "latency_queries": 0}, "latency_queries must be at least 1, got 0"),
])  # fmt: skip
def test_a_grid_of_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BudgetGrid(**options)


def test_what_cannot_be_studied_is_refused(scorer):
    scores = evaluate_tasks(TASKS, scorer).scores
    with pytest.raises(ModelError, match="at most the model's max_length of 160 tokens, got 161"):
        budget_study(TASKS, scorer, scores, BudgetGrid([5], [161]))
    with pytest.raises(DataError, match="no first stage, so there is no depth to study"):
        budget_study([task("unranked", 9, 1, ranked=False)], scorer, scores, BudgetGrid([5]))
