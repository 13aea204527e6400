from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossrank.data import micro_batches
from crossrank.data.datamodule import Batching, PairDataModule
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.none import NoMiner
from crossrank.data.order import epoch_order
from crossrank.data.pairs import Ingredients, PairIndex, QAPairs, Splits
from crossrank.data.policy import Policy
from crossrank.data.tokens import PairEncoder
from crossrank.errors import DataError

WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]
SEED = 12


class Pairs:
    """A source of random pairs that counts how often it is read."""

    def __init__(self, count: int = 14) -> None:
        rng = np.random.default_rng(count)
        self.pairs = QAPairs(*([" ".join(rng.choice(WORDS, n)) for _ in range(count)] for n in (3, 8)))
        self.loads = 0

    def assets(self):
        return ()

    def ingredients(self):
        return Ingredients({"pairs": len(self.pairs)}, {})

    def fingerprint(self):
        return self.ingredients().fingerprint

    def load(self):
        self.loads += 1
        return Splits(self.pairs, QAPairs(["dev"], ["dev"]))


@pytest.fixture
def module(encoder, tmp_path):
    def make(accumulate: int = 1, source=None, policy=None, encoder=encoder, seed: int = SEED, **batching):
        batching = Batching(**{"pairs_per_step": 6, **batching})
        return PairDataModule(
            source or Pairs(), BM25Miner(), policy or Policy(2), encoder, batching, tmp_path, seed, accumulate
        )

    return make


def same(a, b) -> bool:
    numbers = {"longest", "token_pairs", "tail"}
    return all(getattr(a, name) == getattr(b, name) for name in numbers) and all(
        torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in numbers
    )


def pairs_in(batch) -> list[tuple[tuple[int, ...], float]]:
    parts = torch.tensor_split(batch.input_ids, batch.offsets[1:-1].long())
    return [(tuple(ids.tolist()), label) for ids, label in zip(parts, batch.labels.tolist(), strict=True)]


def test_batch_k_holds_the_pairs_that_stand_there_in_the_epochs_order(module, encoder):
    data = module(epochs=2)
    index, rows = PairIndex.of(data.source.pairs), data.rows
    batches = list(data.train_dataloader())
    assert len(batches) == data.max_steps == 2 * -(-len(rows) // 6)
    for epoch in range(2):
        wanted = [
            (tuple(encoder.tokenizer(index.questions[q], index.documents[d])["input_ids"]), float(label))
            for q, d, label in (
                (rows.questions[i], rows.documents[i], rows.labels[i]) for i in epoch_order(len(rows), SEED, epoch)
            )
        ]
        steps = len(batches) // 2
        got = [pairs_in(batch) for batch in batches[epoch * steps : (epoch + 1) * steps]]
        assert got == [wanted[start : start + 6] for start in range(0, len(wanted), 6)]


def test_pairs_of_a_batch_share_a_query_index_exactly_when_they_share_a_question(module):
    data = module(pairs_per_step=20)
    batch = next(iter(data.train_dataloader()))
    questions = data.rows.questions[epoch_order(len(data.rows), SEED, 0)[:20]]
    same_question = questions[:, None] == questions
    np.testing.assert_array_equal(batch.query_index[:, None] == batch.query_index, same_question)
    assert same_question.sum() > 20


def test_pairs_know_their_place_among_their_questions_negatives(module):
    data = module(pairs_per_step=20)
    batch = next(iter(data.train_dataloader()))
    chosen = epoch_order(len(data.rows), SEED, 0)[:20]
    assert batch.ranks.tolist() == [i % 3 for i in chosen]  # an answer and 2 negatives a question
    assert set(batch.ranks.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("fresh", [False, True], ids=["stale", "fresh"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_micro_batch_depends_on_its_position_alone(module, workers, fresh):
    policy = Policy(2, sampling="random", fresh=fresh)
    data = module(accumulate=2, epochs=3, workers=workers, policy=policy)
    loader = data.train_dataloader()
    streamed = list(loader)
    asked = loader.dataset
    assert len(streamed) == len(asked) == len(loader) == data.max_steps * 2
    for position in np.random.default_rng(0).permutation(len(asked)):
        assert same(asked[position], streamed[position])
    assert not same(streamed[0], streamed[2 * data.plan.steps_per_epoch])  # the next epoch has another order
    epochs = [
        {pair for batch in streamed[start : start + len(streamed) // 3] for pair in pairs_in(batch)}
        for start in range(0, len(streamed), len(streamed) // 3)
    ]
    answers, negatives = ([{pair for pair in pairs if pair[1] == label} for pairs in epochs] for label in (1, 0))
    assert answers[0] == answers[1] == answers[2]
    assert (negatives[0] != negatives[1] != negatives[2]) is fresh


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_splits_a_step_and_changes_none(module, accumulate):
    whole, split = list(module(epochs=2).train_dataloader()), list(module(accumulate, epochs=2).train_dataloader())
    steps = [split[start : start + accumulate] for start in range(0, len(split), accumulate)]
    for one, parts in zip(whole, steps, strict=True):
        assert sorted(pairs_in(one)) == sorted(pair for part in parts for pair in pairs_in(part))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_another_seed_is_another_order(module):
    a, b = (next(iter(module(seed=seed).train_dataloader())) for seed in (1, 2))
    assert not same(a, b)


@pytest.mark.parametrize(
    ("batching", "steps"),
    [({}, 7), ({"epochs": 0.5}, 4), ({"epochs": 0.001}, 1), ({"epochs": 2}, 14), ({"epochs": 2, "max_steps": 3}, 3)],
)
def test_the_length_is_max_steps_or_a_number_of_epochs(module, batching, steps):
    data = module(**batching)
    assert len(data.rows) == 42  # 14 questions, each with its answer and 2 negatives: 7 steps of 6 pairs
    assert data.max_steps == steps
    assert len(list(data.train_dataloader())) == steps


def test_preparing_again_reads_nothing_again(module):
    source = Pairs()
    module(source=source).prepare_data()
    data = module(source=source)
    data.prepare_data()
    list(data.train_dataloader())
    assert source.loads == 1


def test_a_training_goes_on_at_the_saved_position(module):
    whole = list(module(epochs=2, accumulate=2).train_dataloader())
    data = module(epochs=2, accumulate=2)
    data.load_state_dict({**data.state_dict(), "steps": 8})
    loader = data.train_dataloader()
    rest = list(loader)
    assert len(loader) == len(whole)  # Lightning compares the whole length with its own counter
    assert len(rest) == len(whole) - 16
    assert all(map(same, rest, whole[16:]))


def test_a_position_is_of_steps_whatever_the_accumulation(module):
    """Eight steps are made; the ninth comes next, in as many micro-batches as this training splits it into."""
    state = {**module(epochs=2, accumulate=2).state_dict(), "steps": 8}
    split, whole = module(epochs=2, accumulate=3), list(module(epochs=2).train_dataloader())
    split.load_state_dict(state)
    next_step = list(split.train_dataloader())[:3]
    assert sorted(pairs_in(whole[8])) == sorted(pair for part in next_step for pair in pairs_in(part))


def test_another_policy_is_gone_on_with_only_if_that_is_wished(module, caplog):
    state = {**module().state_dict(), "steps": 2}
    data = module(policy=Policy(1))
    data.resume_anyway = True
    data.load_state_dict(state)
    assert "position means something else here" in caplog.text
    assert data.train_dataloader().sampler.start == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_each_steps_pairs(module, accumulate):
    whole = list(module(epochs=2).train_dataloader())
    data = module(accumulate, epochs=2)
    data.processes = 3
    shares = []
    for rank in range(3):
        data.trainer = SimpleNamespace(global_rank=rank)
        shares.append(list(data.train_dataloader()))
    assert {len(share) for share in shares} == {len(whole) * accumulate}
    for step, one in enumerate(whole):
        parts = [share[step * accumulate + i] for share in shares for i in range(accumulate)]
        assert sorted(pairs_in(one)) == sorted(pair for part in parts for pair in pairs_in(part))


def test_a_position_saved_under_the_same_settings_is_accepted(module):
    module().load_state_dict(module(workers=2, epochs=9).state_dict())


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 13}, "seed"),
        ({"pairs_per_step": 8}, "pairs_per_step"),
        ({"policy": Policy(1)}, "rows"),
        ({"source": Pairs(15)}, "rows"),
    ],
)
def test_a_position_that_means_something_else_here_is_refused(module, changed, name):
    state = module().state_dict()
    with pytest.raises(DataError, match=rf"position means something else here: .*'{name}'"):
        module(**changed).load_state_dict(state)


def test_a_position_saved_with_another_tokenisation_is_refused(module, encoder):
    state = module().state_dict()
    with pytest.raises(DataError, match=r"'tokens'"):
        module(encoder=PairEncoder(encoder.tokenizer, 32)).load_state_dict(state)


def test_a_state_without_a_position_is_refused(module):
    with pytest.raises(DataError, match="means something else"):
        module().load_state_dict({"consumed": 3})


def test_rows_that_give_no_step_are_refused_each_time(module):
    data = module(source=Pairs(2), policy=Policy(1), accumulate=8, pairs_per_step=8)
    for _ in range(2):
        with pytest.raises(DataError, match="steps per epoch are 0: 4 pairs for 8 micro-batches"):
            data.prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs_per_step": 0}, "steps per epoch would be 0"),
        ({"epochs": 0}, "epochs > 0"),
        ({"max_steps": 0}, "max_steps >= 1"),
        ({"workers": -1}, "workers counts processes"),
        ({"pool_depth": 0}, "pool_depth"),
        ({"in_batch_negatives": -1}, "counts documents from 0, got -1"),
        ({"in_batch_negatives": 1}, "at least 2, got None"),
        ({"in_batch_negatives": 1, "questions_per_step": 1}, "at least 2, got 1"),
    ],
)
def test_impossible_batching_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Batching(), **settings)


def test_scores_reach_the_batch_as_float32(module, tmp_path):
    source = Pairs()
    source.pairs = QAPairs(source.pairs.questions, source.pairs.answers, np.linspace(-3, 3, 14, dtype=np.float32), True)
    data = module(source=source, pairs_per_step=14)
    data.miner = NoMiner()
    batch = next(iter(data.train_dataloader()))
    assert batch.labels.dtype == torch.float32
    assert sorted(batch.labels.tolist()) == source.pairs.labels.tolist()


def questions_in(batch) -> list[list[tuple[tuple[int, ...], float]]]:
    pairs = pairs_in(batch)
    return [[pairs[i] for i in (batch.query_index == q).nonzero().flatten()] for q in batch.query_index.unique()]


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (2, 1), (2, 2)])
def test_a_step_can_be_made_of_whole_questions(module, accumulate, processes):
    """14 questions, each with its answer and 2 negatives; 4 a step, so that the last step has 2."""
    data = module(accumulate, policy=Policy(2), questions_per_step=4, epochs=2)
    data.processes = processes
    asked = []
    for rank in range(processes):
        data.trainer = SimpleNamespace(global_rank=rank)
        batches = list(data.train_dataloader())
        assert len(batches) == data.max_steps * accumulate
        sizes = [len(questions_in(batch)) for batch in batches]
        assert set(sizes[: 3 * accumulate]) == {4 // (accumulate * processes)}
        for batch in batches:
            for pairs in questions_in(batch):
                assert sorted(label for _, label in pairs) == [0, 0, 1]
                asked.append(tuple(sorted(pairs)))
    epochs = 2 if accumulate * processes <= 2 else 2 * 12 / 14  # 2 questions cannot serve 4 shares
    assert len(asked) == 14 * epochs
    assert len(set(asked)) <= 14


def test_the_questions_of_a_step_stand_in_the_epochs_order(module):
    data = module(questions_per_step=5)
    batches, order = list(data.train_dataloader()), epoch_order(14, SEED, 0)
    wanted = [sorted(np.repeat(order[start : start + 5], 3).tolist()) for start in (0, 5, 10)]
    firsts = [data.rows.question_tokens[q].tolist() for q in range(14)]
    for batch, questions in zip(batches, wanted, strict=True):
        found = [
            next(q for q in range(14) if ids[1 : 1 + len(firsts[q])] == tuple(firsts[q])) for ids, _ in pairs_in(batch)
        ]
        assert sorted(found) == questions


def test_a_training_on_questions_goes_on_where_it_stopped_and_not_as_one_on_pairs(module):
    whole = list(module(epochs=2, questions_per_step=4).train_dataloader())
    data = module(epochs=2, questions_per_step=4)
    state = {**data.state_dict(), "steps": 3}
    data.load_state_dict(state)
    assert all(map(same, data.train_dataloader(), whole[3:]))
    for other in (module(), module(questions_per_step=6)):
        with pytest.raises(DataError, match=r"'questions_per_step'|'pairs_per_step'"):
            other.load_state_dict(state)


def test_too_few_questions_for_the_micro_batches_are_refused(module):
    with pytest.raises(DataError, match="steps per epoch are 0: 2 questions for 8 micro-batches"):
        module(8, source=Pairs(2), policy=Policy(1), questions_per_step=8).prepare_data()


def test_documents_of_other_questions_stand_behind_a_questions_own(module):
    """14 questions, each with its answer and 2 negatives, 4 a step."""
    plain = list(module(questions_per_step=4, workers=2).train_dataloader())
    batches = list(module(questions_per_step=4, workers=2, in_batch_negatives=3).train_dataloader())
    for before, batch in zip(plain, batches, strict=True):
        there = set(before.input_ids.tolist())
        for own, pairs in zip(questions_in(before), questions_in(batch), strict=True):
            assert pairs[:3] == own
            assert [label for _, label in pairs[3:]] == [0, 0, 0]
            assert len(set(pairs)) == 6
        assert set(batch.input_ids.tolist()) == there


def test_a_training_with_documents_of_other_questions_goes_on_where_it_stopped_and_not_without(module):
    settings = {"epochs": 2, "questions_per_step": 4, "in_batch_negatives": 3}
    whole = list(module(2, **settings).train_dataloader())
    data = module(2, **settings)
    state = {**data.state_dict(), "steps": 3}
    data.load_state_dict(state)
    assert all(map(same, data.train_dataloader(), whole[6:]))
    without = module(2, **settings | {"in_batch_negatives": 0})
    before = {key: value for key, value in without.state_dict().items() if key != "in_batch_negatives"}
    without.load_state_dict(before)  # a state from before there were any
    for saved, other in ((state, without), (before, data)):
        with pytest.raises(DataError, match=r"'in_batch_negatives': \("):
            other.load_state_dict(saved)


@pytest.mark.parametrize("stay", [False, True])
def test_a_batch_goes_to_the_device_unless_it_is_to_stay(module, stay):
    data = module()
    data.stay = stay
    batch = next(iter(data.train_dataloader()))
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert (moved is batch) == stay
    assert moved.input_ids.device.type == ("cpu" if stay else "meta")


@pytest.mark.parametrize("resident", [1, 3])
def test_letting_go_of_what_was_read_changes_no_batch(module, monkeypatch, resident):
    wanted = list(module(epochs=2).train_dataloader())
    monkeypatch.setattr(micro_batches, "BATCHES_RESIDENT", resident)
    assert all(map(same, module(epochs=2).train_dataloader(), wanted))
