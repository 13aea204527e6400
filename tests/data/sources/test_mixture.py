import logging
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.pairs import Ingredients, PairIndex, QAPairs, Splits
from crossrank.data.sources.mixture import Mixture
from crossrank.data.sources.pairs_file import PairsFile
from crossrank.data.splits import load_splits
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True)
class Numbered:
    """`count` questions with `answers` each, and a dev set."""

    name: str
    count: int
    answers: int = 1
    dev: tuple[str, ...] = ("dev",)
    labels: float | None = None
    scored: bool = False

    def assets(self):
        return (Asset("dataset", f"owner/{self.name}", "1"),)

    def ingredients(self):
        return Ingredients({"name": self.name, "count": self.count}, {})

    def fingerprint(self):
        return self.ingredients().fingerprint

    def load(self):
        rows = [
            (f"{self.name}{i}", f"answer {self.name}{i}.{j}") for i in range(self.count) for j in range(self.answers)
        ]
        labels = None if self.labels is None else np.full(len(rows), self.labels, np.float32)
        train = QAPairs([q for q, _ in rows], [a for _, a in rows], labels, self.scored)
        dev = QAPairs([f"{self.name} {q}" if q == "dev" else q for q in self.dev], ["answer"] * len(self.dev))
        return Splits(train, dev)


def visits(pairs: QAPairs) -> dict[str, int]:
    """How often an epoch visits each question."""
    index = PairIndex.of(pairs)
    copies = np.ones(len(index.questions), int) if index.copies is None else index.copies
    return dict(zip(index.questions, copies.tolist(), strict=True))


def of(found: dict[str, int], name: str) -> int:
    return sum(count for question, count in found.items() if question.startswith(name))


sizes = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 40), st.floats(0.01, 50)), min_size=1)


@settings(deadline=None)
@given(parts=sizes, size=st.none() | st.integers(4, 300))
def test_every_source_gives_its_share_to_within_one_question(parts, size):
    sources = {name: Numbered(name, count) for name, (count, _) in parts.items()}
    weights = {name: weight for name, (_, weight) in parts.items()}
    found = visits(Mixture(sources, weights, size).load().train)
    total = sum(found.values())
    assert size is None or total == size
    for name, (count, weight) in parts.items():
        assert abs(of(found, name) - total * weight / sum(weights.values())) < 1 + 1e-6
        times = [visits for question, visits in found.items() if question.startswith(name)]
        assert max(times, default=0) - min(times, default=0) <= 1
        assert len(times) == min(of(found, name), count)  # nothing is repeated before all has been taken


@settings(deadline=None)
@given(parts=sizes)
def test_without_a_size_nothing_is_repeated_and_one_more_question_would_be(parts):
    weights = {name: weight for name, (_, weight) in parts.items()}
    mixture = Mixture({name: Numbered(name, count) for name, (count, _) in parts.items()}, weights)
    counts = mixture.shares({name: count for name, (count, _) in parts.items()})
    assert all(counts[name] <= count for name, (count, _) in parts.items())
    total, whole = sum(counts.values()) + 1, sum(weights.values())
    assert any(total * weights[name] / whole > count - 1e-6 for name, (count, _) in parts.items())


def test_shares_by_hand():
    mixture = Mixture({"a": Numbered("a", 1), "b": Numbered("b", 1), "c": Numbered("c", 1)}, {"a": 3, "b": 2, "c": 1})
    assert mixture.shares({"a": 30, "b": 10, "c": 30}) == {"a": 15, "b": 10, "c": 5}
    mixture = Mixture(mixture.sources, mixture.weights, size=10)
    assert mixture.shares({"a": 1, "b": 1, "c": 1}) == {"a": 5, "b": 3, "c": 2}  # 5, 3 1/3, 1 2/3


def test_the_same_is_drawn_again_whatever_the_order_of_the_sources():
    a, b = Numbered("a", 30), Numbered("b", 30)
    one = Mixture({"x": a, "y": b}, {"x": 1, "y": 2})
    other = Mixture({"y": b, "x": a}, {"y": 2, "x": 1})
    assert one.load() == other.load() == one.load()
    assert one.fingerprint() == other.fingerprint()
    assert visits(Mixture({"x": a, "y": b}, {"x": 1, "y": 2}, seed=13).load().train) != visits(one.load().train)


def test_a_question_is_drawn_with_all_its_answers():
    train = Mixture({"a": Numbered("a", 10, answers=3), "b": Numbered("b", 4)}, {"a": 1, "b": 1}).load().train
    assert len(visits(train)) == 8
    assert sorted(q for q in train.questions if q[0] == "a") == sorted(
        q for q in visits(train) if q[0] == "a" for _ in range(3)
    )


def test_a_source_that_is_repeated_is_said_to_be(caplog):
    train = Mixture({"a": Numbered("a", 10), "b": Numbered("b", 100)}, {"a": 1, "b": 1}, size=50).load().train
    found = visits(train)
    assert (of(found, "a"), of(found, "b")) == (25, 25)
    assert sorted(count for question, count in found.items() if question[0] == "a") == [2] * 5 + [3] * 5
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["'a' has 10 questions and gives 25: each 2 times, 5 once more"]


def test_dev_sets_are_joined_and_never_trained_on(caplog):
    a, b = Numbered("a", 10, dev=("b3", "dev")), Numbered("b", 10, answers=2)
    splits = Mixture({"a": a, "b": b}, {"a": 1, "b": 1}).load()
    assert list(splits.dev.questions) == ["b3", "a dev", "b dev"]
    assert "b3" not in splits.train.questions
    assert len(visits(splits.train)) == 18
    assert "2 pairs of 'b' ask what a dev set holds, and are left out" in caplog.messages


def test_pairs_beside_lists_are_labelled_1():
    a, b = Numbered("a", 3), Numbered("b", 3, labels=0.25)
    train = Mixture({"a": a, "b": b}, {"a": 1, "b": 1}).load().train
    assert {(q[0], label) for q, label in zip(train.questions, train.labels.tolist(), strict=True)} == {
        ("a", 1),
        ("b", 0.25),
    }
    scored = Numbered("b", 3, labels=0.25, scored=True)
    with pytest.raises(DataError, match="some sources have scores and some have none"):
        Mixture({"a": a, "b": scored}, {"a": 1, "b": 1}).load()
    assert Mixture({"b": scored}, {"b": 1}).load().train.scored


def test_mixtures_nest_and_stream(tmp_path):
    (tmp_path / "p.csv").write_text("question,answer\n" + "".join(f"p{i},x{i}\n" for i in range(12)))
    inner = Mixture({"a": Numbered("a", 9), "p": PairsFile(str(tmp_path / "p.csv"), dev_size=2)}, {"a": 1, "p": 1})
    outer = Mixture({"in": inner, "b": Numbered("b", 90)}, {"in": 1, "b": 1}, size=36)
    train = load_splits(outer, tmp_path).train
    found = visits(train)
    assert [of(found, name) for name in "apb"] == [9, 9, 18]
    assert train == outer.load().train
    assert {asset.path for asset in outer.assets()} == {"owner/a", "owner/b"}


def test_a_mixture_that_repeats_is_no_part_of_another():
    inner = Mixture({"a": Numbered("a", 8)}, {"a": 1}, size=12)
    with pytest.raises(
        DataError, match="'in' repeats questions itself, which shares cannot count; mix its sources here"
    ):
        Mixture({"in": inner, "b": Numbered("b", 9)}, {"in": 1, "b": 1}).load()


def test_the_fingerprint_is_made_of_all_that_counts():
    a, b = Numbered("a", 3), Numbered("b", 3)
    different = [
        Mixture({"a": a, "b": b}, {"a": 1, "b": 1}), Mixture({"a": a, "b": b}, {"a": 1, "b": 2}),
        Mixture({"a": a, "b": Numbered("b", 4)}, {"a": 1, "b": 1}), Mixture({"a": a, "c": b}, {"a": 1, "c": 1}),
        Mixture({"a": a, "b": b}, {"a": 1, "b": 1}, 2), Mixture({"a": a, "b": b}, {"a": 1, "b": 1}, seed=3),
        Mixture({"a": b, "b": a}, {"a": 1, "b": 1}),
    ]  # fmt: skip
    assert len({mixture.fingerprint() for mixture in different}) == len(different)


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [
        ({"a": 1}, None, r"every source needs a weight: the sources are \['a', 'b'\], the weights those of \['a'\]"),
        ({"a": 1, "b": 1, "c": 1}, None, "every source needs a weight"),
        ({"a": 1, "c": 1}, None, "every source needs a weight"),
        ({"a": 1, "b": 0}, None, "a weight is a number above 0, got 0 for 'b'"),
        ({"a": -1, "b": 1}, None, "a weight is a number above 0, got -1 for 'a'"),
        ({"a": float("nan"), "b": 1}, None, "a weight is a number above 0"),
        ({"a": float("inf"), "b": 1}, None, "a weight is a number above 0"),
        ({"a": 1, "b": 1}, 1, "size counts questions, at least one of each of 2, got 1"),
    ],
)
def test_impossible_mixtures_are_refused(weights, size, message):
    with pytest.raises(ValueError, match=message):
        Mixture({"a": Numbered("a", 3), "b": Numbered("b", 3)}, weights, size)


def test_what_is_no_source_and_what_has_nothing_is_named():
    with pytest.raises(ValueError, match="the sources are none"):
        Mixture({}, {})
    with pytest.raises(ValueError, match="'a' is a BM25Miner and no source"):
        Mixture({"a": BM25Miner()}, {"a": 1})
    with pytest.raises(DataError, match="the source 'a' has no question to train on"):
        Mixture({"a": Numbered("a", 0), "b": Numbered("b", 3)}, {"a": 1, "b": 1}).load()


@pytest.fixture(autouse=True)
def _quiet_enough(caplog):
    caplog.set_level(logging.INFO)
