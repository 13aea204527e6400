from itertools import pairwise

import numpy as np
import pytest
import torch

from crossrank.data.batch import PairBatch, collate

TEXTS = [("what is a cat", "an animal"), ("who", "nobody knows who it was"), ("", "x"), ("what is a cat", "y z")]

RANKS = np.array([0, 3, 1, 0], np.uint8)


@pytest.fixture
def batch(encoder) -> PairBatch:
    pairs = [tuple(encoder.encode(list(pair))) for pair in TEXTS]
    return collate(encoder, pairs, labels=np.array([1, 0, 0, 1], np.uint8), questions=[70, 4, 9, 70], ranks=RANKS)


def test_each_pair_stands_between_its_offsets_as_the_tokenizer_encodes_it(encoder, batch):
    for i, (question, document) in enumerate(TEXTS):
        own = slice(batch.offsets[i], batch.offsets[i + 1])
        wanted = encoder.tokenizer(question, document, return_token_type_ids=True)
        assert batch.input_ids[own].tolist() == wanted["input_ids"]
        assert batch.token_type_ids[own].tolist() == wanted["token_type_ids"]
        assert batch.position_ids[own].tolist() == list(range(len(wanted["input_ids"])))


def test_a_batch_counts_its_pairs_tokens_and_longest_pair(encoder, batch):
    lengths = [len(encoder.tokenizer(*pair)["input_ids"]) for pair in TEXTS]
    assert (len(batch), batch.tokens, batch.longest) == (4, sum(lengths), max(lengths))
    assert batch.offsets.tolist() == [0, *np.cumsum(lengths)]


def test_types_are_those_the_model_and_the_kernels_want(batch):
    wanted = {"offsets": torch.int32, "labels": torch.float32}
    names = ("input_ids", "position_ids", "token_type_ids", "offsets", "labels", "query_index", "ranks")
    assert {name: getattr(batch, name).dtype for name in names} == {
        name: wanted.get(name, torch.int64) for name in names
    }


def test_pairs_of_one_question_share_a_number_counted_from_0(batch):
    assert batch.labels.tolist() == [1, 0, 0, 1]
    assert batch.ranks.tolist() == RANKS.tolist()
    assert batch.query_index[0] == batch.query_index[3]
    assert sorted(set(batch.query_index.tolist())) == [0, 1, 2]


def test_labels_default_to_0_and_each_pair_to_its_own_question(encoder):
    pairs = [tuple(encoder.encode(["who", "me"]))] * 3
    batch = collate(encoder, pairs)
    assert batch.labels.tolist() == [0, 0, 0]
    assert batch.query_index.tolist() == [0, 1, 2]
    assert batch.ranks is None
    assert batch.to("meta").ranks is None


def test_a_pair_longer_than_max_length_is_cut_to_it(encoder):
    question, document = encoder.encode(["who " * 100, "me " * 100])
    assert collate(encoder, [(question, document)]).longest == encoder.max_length


def test_moving_a_batch_keeps_everything_and_moves_every_tensor(batch):
    moved = batch.to("meta")
    assert (moved.longest, len(moved), moved.tokens) == (batch.longest, len(batch), batch.tokens)
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 7
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    same = batch.to("cpu")
    assert all(
        torch.equal(value, getattr(same, name)) if isinstance(value, torch.Tensor) else value == getattr(same, name)
        for name, value in vars(batch).items()
    )


@pytest.mark.parametrize("tail", [0, 5])
@pytest.mark.parametrize(("count", "cuts"), [(1, [0, 4]), (2, [0, 2, 4]), (3, [0, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_pieces_are_the_pairs_in_their_order(count, cuts, tail, encoder, batch):
    lengths = batch.offsets.diff().tolist()
    assert lengths == [9, 9, 4, 9]
    pieces = (batch.rounded(36) if tail else batch).pieces(count)
    tokens = [tuple(encoder.encode(list(pair))) for pair in TEXTS]
    assert len(pieces) == len(cuts) - 1
    for piece, (start, stop) in zip(pieces, pairwise(cuts), strict=True):
        wanted = collate(encoder, tokens[start:stop], batch.labels[start:stop], ranks=RANKS[start:stop])
        wanted.query_index = batch.query_index[start:stop]
        assert piece.tail == 0
        for name, value in vars(wanted).items():
            same = torch.equal if isinstance(value, torch.Tensor) else int.__eq__
            assert same(getattr(piece, name), value), name


def test_a_piece_has_no_more_than_its_share_of_tokens_and_one_pair(encoder):
    random = np.random.default_rng(0)
    batch = collate(
        encoder, [(random.integers(5, 900, 2), random.integers(5, 900, n)) for n in random.integers(1, 50, 40)]
    )
    for count in range(1, 45):
        pieces = batch.pieces(count)
        assert sum(map(len, pieces)) == 40
        assert 1 <= len(pieces) <= min(count, 40)
        assert max(piece.tokens for piece in pieces) <= batch.tokens / count + batch.longest


@pytest.mark.parametrize(("multiple", "always", "tail"), [(1, False, 0), (1, True, 1), (31, False, 0), (31, True, 31),
                                                          (8, False, 1), (8, True, 1), (64, True, 33)])  # fmt: skip
def test_a_tail_fills_the_tokens_up_and_counts_as_none(multiple, always, tail, batch):
    assert batch.tokens == 31
    rounded = batch.rounded(multiple, always)
    assert (rounded.tail, len(rounded.input_ids), rounded.tokens, len(rounded)) == (tail, 31 + tail, 31, 4)
    assert rounded.offsets.diff().tolist() == batch.offsets.diff().tolist() + [tail] * bool(tail)
    assert rounded.position_ids[31:].tolist() == list(range(tail))
    assert (rounded.longest, rounded.token_pairs) == (max(batch.longest, tail), batch.token_pairs)
    assert rounded.rounded(100) is rounded or not tail
    bare = rounded.without_tail()
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(bare, name), value)


def test_few_shapes_are_multiples_of_tokens_and_longest(batch):
    shaped = batch.of_few_shapes(16)
    assert (len(shaped.input_ids), shaped.longest, shaped.tail) == (32, 16, 1)
    assert batch.of_few_shapes(31).input_ids.shape == (62,)  # never without a tail
