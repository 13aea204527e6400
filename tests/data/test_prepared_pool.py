import dataclasses

import numpy as np
import pytest
from test_training_rows import CountingMiner, CountingSource

from crossrank.data import prepared_pool
from crossrank.data.near_equal import SignedTexts
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy
from crossrank.data.prepared_pool import NEAR, TrainingTexts, prepare_pool
from crossrank.data.search import NO_CANDIDATE
from crossrank.data.twins import MinedPool, twins
from crossrank.errors import DataError


@dataclasses.dataclass
class Teacher:
    candidates: int = 3
    calls: int = 0

    def fingerprint(self):
        return f"teacher-{self.candidates}"

    def probabilities(self, pairs):
        self.calls += len(pairs)
        return np.float32([len(document) % 10 / 10 for _, document in pairs])


@pytest.fixture
def texts(tmp_path):
    """Twelve pairs; an answer has a copy in other letters, one that holds it, and one with another last word."""
    answers = [f"the {word} stands in the {word} beside a river that runs to the sea" for word in ("cat", "dog", "owl")]
    more = [answers[0].upper() + "!", f"Well: {answers[1]} indeed", answers[2].replace("sea", "lake")]
    rest = [f"a {word} of {word} in the river" for word in ("stone", "music", "iron", "paper", "cloud", "bread")]
    pairs = QAPairs([f"which river {i}" for i in range(12)], [*answers, *more, *rest])
    return TrainingTexts(CountingSource(pairs=pairs), tmp_path)


def test_a_policy_without_twins_and_teacher_reads_the_pool_as_it_was_mined(texts):
    made = prepare_pool(texts, CountingMiner(), Policy(2, rank_max=8, drop_twins=False))
    assert made.pool.twins is None
    assert made.pool.teacher is None
    assert made.lineage.ids["pool"] == made.folder.name
    assert not made.lineage.ids.keys() & {"twins", "teacher", "answers"}


def test_twins_are_found_once_and_are_no_negatives(texts):
    miner, policy = CountingMiner(), Policy(11, rank_max=11)
    made = prepare_pool(texts, miner, policy)
    ids = MinedPool(made.pool.candidates, made.pool.positive_offsets, made.pool.positives)
    wanted = np.concatenate(list(twins(ids, SignedTexts.of(texts.index.documents, NEAR))))
    np.testing.assert_array_equal(made.pool.twins, wanted)
    taken = policy.select(made.pool, np.arange(12)).documents
    left_out = [set(range(12)) - {q} - set(row.tolist()) for q, row in enumerate(taken)]
    assert left_out[:3] == [{3}, {4}, set()]  # 3 is its equal, 4 holds it; 5 differs by one n-gram in 12: J = 0.85
    assert (taken[3:5] != NO_CANDIDATE).sum() == 11 + 11 - 1  # 0 equals 3; 4 does not stand in 1
    searches = miner.searches
    again = prepare_pool(TrainingTexts(texts.source, texts.cache_dir), miner, policy)
    assert (again.lineage.ids, miner.searches) == (made.lineage.ids, searches)


def test_everything_upstream_of_a_change_is_used_again(texts, monkeypatch):
    miner, teacher = CountingMiner(), Teacher()
    built = []
    for name in ("write_twins", "write_signatures", "ask"):
        write = getattr(prepared_pool, name)
        monkeypatch.setattr(
            prepared_pool, name, lambda *given, name=name, write=write: built.append(name) or write(*given)
        )
    base = Policy(2, rank_max=8)
    ids = {}
    for change, (policy, judge) in {
        "base": (base, None),
        "how many": (Policy(3, rank_max=8), None),
        "teacher": (base, teacher),
        "verdict": (dataclasses.replace(base, denoise="relabel", teacher_above=0.5, negatives=4), teacher),
        "filter": (dataclasses.replace(base, max_score=2.0), teacher),
        "more candidates": (base, Teacher(5)),
        "twins kept": (dataclasses.replace(base, drop_twins=False), None),
    }.items():
        built.clear()
        fresh = TrainingTexts(CountingSource(pairs=texts.source.pairs), texts.cache_dir)
        made = prepare_pool(fresh, miner, policy, 10, judge)
        read = tuple(made.lineage.ids.get(step) for step in ("pool", "twins", "answers"))
        ids[change] = (read, sorted(built), miner.searches)
    assert [built for _, built, _ in ids.values()] == [
        ["write_signatures", "write_twins"], [], ["ask"], [], ["ask"], ["ask"], [],
    ]  # fmt: skip
    assert {searches for *_, searches in ids.values()} == {1}
    assert ids["base"][0] == ids["how many"][0] != ids["teacher"][0] == ids["verdict"][0]
    assert len({read for read, *_ in ids.values()}) == 5


def test_a_pool_that_is_less_deep_than_the_policy_looks_is_refused(texts):
    with pytest.raises(DataError, match="the pool holds 5 candidates a question and the policy looks at 8"):
        prepare_pool(texts, CountingMiner(), Policy(2, rank_max=8), 5)
