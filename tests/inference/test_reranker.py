"""Reranker against sentence-transformers' CrossEncoder on the same folder, call form by call form."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from conftest import MINILM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from some_documents import DOCUMENTS, QUESTION

import crossrank
from crossrank.errors import AssetError, DataError, ModelError
from crossrank.inference import reranker as module
from crossrank.inference.reranker import Reranker
from crossrank.models.backbones import Pretrained, RandomInit
from crossrank.models.export import export

ALIKE = {"fp32": 1e-5, "bf16": 0.05}  # how far a pair's logits may lie apart, whatever it is scored with
SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=90).map(" ".join)  # of more than 64 tokens, some
some_pairs = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=9)
unhurried = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(place, encoder, kind="modernbert"):
    model = RandomInit(MINILM, kind, hidden_size=32, local_attention=16).build(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return export(model, encoder, place)


@pytest.fixture(scope="module", params=["modernbert", "bert"])
def folder(request, tmp_path_factory, encoder):
    return make(tmp_path_factory.mktemp("export") / request.param, encoder, request.param)


@pytest.fixture(scope="module")
def reranker(folder):
    return crossrank.Reranker(str(folder))


@pytest.fixture(scope="module")
def peer(folder):
    return CrossEncoder(str(folder), device="cpu")


def kind(scores):
    """What a caller can tell of a result: its type, shape and dtype, and of a list those of what is in it."""
    return (type(scores), [kind(x) for x in scores]) if isinstance(scores, list) else (
        type(scores), scores.shape, scores.dtype,
    )  # fmt: skip


def plain(scores):
    return torch.stack(scores).numpy() if isinstance(scores, list) else np.asarray(scores)


@unhurried
@given(
    pairs=some_pairs,
    form=st.sampled_from([list, tuple, np.array, lambda pairs: [list(pair) for pair in pairs], lambda pairs: pairs[0],
                          lambda pairs: list(pairs[0]), lambda pairs: np.array(pairs[0])]),
    options=st.fixed_dictionaries({}, optional={
        "convert_to_tensor": st.booleans(), "convert_to_numpy": st.booleans(), "apply_softmax": st.booleans(),
        "batch_size": st.sampled_from([1, 5, 32]),
        "activation_fn": st.sampled_from([torch.nn.Identity(), torch.nn.Sigmoid(), torch.tanh, lambda x: 3 * x]),
    }),
)  # fmt: skip
def test_predict_gives_what_cross_encoder_gives_in_every_call_form(pairs, form, options, reranker, peer):
    given_ones = form(pairs)
    ours = reranker.predict(given_ones, show_progress_bar=False, **options)
    theirs = peer.predict(given_ones, show_progress_bar=False, **options)
    assert kind(ours) == kind(theirs)
    np.testing.assert_allclose(plain(ours), plain(theirs), atol=3 * ALIKE["fp32"], rtol=0)
    assert kind(reranker.predict(given_ones)) == kind(peer.predict(given_ones))  # nothing sticks
    np.testing.assert_allclose(reranker.predict(given_ones), peer.predict(given_ones), atol=ALIKE["fp32"], rtol=0)


def test_a_column_of_a_data_set_is_a_list_of_pairs(reranker):
    from datasets import Dataset

    pairs = [[QUESTION, document] for document in DOCUMENTS]
    column = Dataset.from_dict({"pair": pairs})["pair"]
    np.testing.assert_array_equal(reranker.predict(column), reranker.predict(pairs))


def test_of_no_pair_there_are_no_scores(reranker):
    """CrossEncoder's are empty as well; its array is float64."""
    nothing = reranker.predict([])
    assert (type(nothing), nothing.shape, nothing.dtype) == (np.ndarray, (0,), np.float32)
    assert reranker.predict([], convert_to_tensor=True).shape == (0,)
    assert reranker.predict([], convert_to_numpy=False) == []


@unhurried
@given(
    query=sentences, documents=st.lists(sentences, min_size=1, max_size=8), top_k=st.none() | st.integers(1, 10),
    with_texts=st.booleans(),
)  # fmt: skip
def test_rank_gives_what_cross_encoder_gives(query, documents, top_k, with_texts, reranker, peer):
    ours = reranker.rank(query, documents, top_k, with_texts)
    theirs = peer.rank(query, documents, top_k=top_k, return_documents=with_texts, show_progress_bar=False)
    whole = {f["corpus_id"]: f["score"] for f in peer.rank(query, documents, show_progress_bar=False)}
    assert [list(found) for found in ours] == [list(found) for found in theirs]
    assert all(type(found["score"]) is float and type(found["corpus_id"]) is int for found in ours)
    assert [found.get("text") for found in ours] == [documents[f["corpus_id"]] if with_texts else None for f in ours]
    for mine, other in zip(ours, theirs, strict=True):  # where scores are equal but for rounding, either may be first
        assert mine["score"] == pytest.approx(other["score"], abs=ALIKE["fp32"])
        assert mine["score"] == pytest.approx(whole[mine["corpus_id"]], abs=ALIKE["fp32"])


def test_rank_many_is_rank_of_each_from_one_pass(reranker, monkeypatch):
    queries, candidates = [QUESTION, "rivers in python"], [DOCUMENTS, DOCUMENTS[:2]]
    expected = [reranker.rank(*one, 3, True) for one in zip(queries, candidates, strict=True)]
    calls, score = [], reranker.scorer
    monkeypatch.setattr(reranker, "scorer", Counting(score, calls))
    found = reranker.rank_many(queries, candidates, 3, True)
    assert calls == [8]
    assert [[(f["corpus_id"], f["text"]) for f in one] for one in found] == [
        [(f["corpus_id"], f["text"]) for f in one] for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([f["score"] for f in one], [f["score"] for f in other], atol=ALIKE["fp32"], rtol=0)
    assert reranker.rank_many([], []) == []


class Counting:
    def __init__(self, scorer, calls):
        self._scorer, self._calls = scorer, calls

    def __call__(self, pairs):
        self._calls.append(len(pairs))
        return self._scorer(pairs)

    def __getattr__(self, name):
        return getattr(self._scorer, name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pairs_score_does_not_depend_on_what_it_is_scored_with(precision, folder):
    draws = np.random.default_rng(4)
    pairs = [(" ".join(draws.choice(WORDS, 5)), " ".join(draws.choice(WORDS, n))) for n in draws.integers(1, 90, 150)]
    alone = Reranker(str(folder), precision=precision, activation_fn=torch.nn.Identity())
    small = Reranker(str(folder), precision=precision, activation_fn=torch.nn.Identity(), tokens_per_batch=100)
    whole, order = alone.predict(pairs), draws.permutation(150)
    shuffled = alone.predict([pairs[i] for i in order])
    for other in (small.predict(pairs), [alone.predict(pair) for pair in pairs], shuffled[np.argsort(order)]):
        np.testing.assert_allclose(other, whole, atol=ALIKE[precision], rtol=0)
    assert whole.std() > 2 * ALIKE[precision]


def test_equal_documents_stay_in_the_order_given(reranker):
    assert [found["corpus_id"] for found in reranker.rank(QUESTION, ["the same"] * 5)] == [0, 1, 2, 3, 4]


def test_where_the_activation_saturates_the_logits_decide(reranker):
    by_logit = [f["corpus_id"] for f in reranker.rank(QUESTION, DOCUMENTS, activation_fn=torch.nn.Identity())]
    flat = reranker.rank(QUESTION, DOCUMENTS, activation_fn=lambda x: 0 * x)
    assert [found["corpus_id"] for found in flat] == by_logit
    turned = reranker.rank(QUESTION, DOCUMENTS[:4], activation_fn=lambda x: -x)
    assert [f["corpus_id"] for f in turned] == [i for i in reversed(by_logit) if i < 4]


def test_a_model_with_dropout_ranks_without_it(tmp_path):
    backbone = Pretrained(MINILM, attention="padded")
    assert backbone.build(0).config.hidden_dropout_prob == 0.1
    minilm = Reranker(str(export(backbone.build(0), backbone.encoder(), tmp_path / "model")))
    first, again = (minilm.rank(QUESTION, DOCUMENTS) for _ in range(2))
    assert first == again


def test_a_long_document_is_cut_as_cross_encoder_cuts_it_and_counted(folder, peer, caplog):
    reranker, long = Reranker(str(folder)), "rivers and mountains " * 5000
    assert len(long) > 100_000
    pairs = [(QUESTION, long), (QUESTION, "short"), (QUESTION, long + "again")]
    expected = peer.predict(pairs, show_progress_bar=False)
    for _ in range(2):
        np.testing.assert_allclose(reranker.predict(pairs), expected, atol=ALIKE["fp32"], rtol=0)
    assert reranker.pairs_cut == 4
    told = [record.message for record in caplog.records if "are cut" in record.message]
    assert told == ["2 of 3 pairs have more than max_length = 64 tokens and are cut; from now on they are only counted"]


def test_thousands_of_candidates_and_no_text_kept(reranker):
    documents = [f"{DOCUMENTS[i % 6]} {i}" for i in range(3000)]
    assert sorted(found["corpus_id"] for found in reranker.rank(QUESTION, documents)) == list(range(3000))
    assert reranker.scorer._tokens == {}


def test_settings_reach_the_scorer(folder):
    reranker = Reranker(str(folder), max_length=20, tokens_per_batch=77, device="cpu", activation_fn=torch.tanh)
    expected = CrossEncoder(str(folder), device="cpu", max_length=20, activation_fn=torch.tanh)
    pairs = [(QUESTION, document) for document in DOCUMENTS]
    found = reranker.predict(pairs)
    np.testing.assert_allclose(found, expected.predict(pairs, show_progress_bar=False), atol=ALIKE["fp32"], rtol=0)
    assert (reranker.max_length, reranker.device.type, reranker.scorer.tokens_per_batch) == (20, "cpu", 77)


def test_of_a_runs_folder_the_export_is_loaded(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run" / "export")
    assert Reranker(str(tmp_path / "run")).folder == tmp_path / "run" / "export"


@pytest.mark.parametrize(("level", "asked", "shown"), [
    (logging.INFO, None, True), (logging.WARNING, None, False), (logging.WARNING, True, True),
    (logging.INFO, False, False),
])  # fmt: skip
def test_the_progress_bar_is_shown_where_asked_for_or_at_level_info(level, asked, shown, reranker, monkeypatch):
    from crossrank.data import progress

    bars, new = [], progress._BARS._new
    monkeypatch.setattr(progress._BARS, "_new", lambda: bars.append(1) or new())
    monkeypatch.setattr(module.log, "level", level)
    module.log.manager._clear_cache()
    try:
        reranker.predict([(QUESTION, "write")], show_progress_bar=asked)
    finally:
        module.log.manager._clear_cache()
    assert bool(bars) == shown


@pytest.mark.parametrize(("call", "message"), [
    (lambda r: r.rank("  \n", DOCUMENTS), "the question is empty"),
    (lambda r: r.rank(QUESTION, []), "no document to rank for the question"),
    (lambda r: r.rank_many([QUESTION] * 2, [["a"], []]), "no document to rank for the question 1"),
    (lambda r: r.rank_many([QUESTION], [["a"], ["b"]]), "as many lists of candidates as queries are wanted, got 2: 1"),
    (lambda r: r.rank(QUESTION, DOCUMENTS, 0), "top_k must be at least 1, or None for all documents, got 0"),
    (lambda r: r.predict([(QUESTION, "a")], batch_size=0), "batch_size must be at least 1, got 0"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_one_sentence(call, message, reranker):
    with pytest.raises(DataError, match=message):
        call(reranker)


def broken(folder, place, value=float("nan")):
    shutil.copytree(folder, place)
    weights = load_file(place / "model.safetensors")
    weights["classifier.weight"][0, 3] = value
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(value, folder, tmp_path):
    with pytest.raises(ModelError, match=r"weights that are not finite numbers, the first in classifier\.weight"):
        Reranker(str(broken(folder, tmp_path / "broken", value)))


def test_scores_that_overflow_are_refused(folder, tmp_path):
    reranker = Reranker(str(broken(folder, tmp_path / "huge", 3e38)))
    reranker.scorer.model.classifier.classifier.weight.data *= 1e3
    with pytest.raises(ModelError, match=r"score of 1 of 1 pairs is not finite \(-?(inf|nan) of pair 0\)"):
        reranker.predict([(QUESTION, "write")])


def test_what_is_no_cross_encoder_is_named(folder, static_embedder, tmp_path):
    with pytest.raises(ModelError, match="no trained reranker: it is a SentenceTransformer, which embeds one text"):
        Reranker(str(static_embedder))
    with pytest.raises(ModelError, match="no trained reranker: it is a SentenceTransformer"):
        Reranker(MINILM)
    (tmp_path / "papers").mkdir()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        Reranker(str(tmp_path / "papers"))
    with pytest.raises(AssetError, match="no such folder"):
        Reranker("./nowhere")


def test_a_model_with_several_labels_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "three")
    config = json.loads((tmp_path / "three" / "config.json").read_text())
    names = {str(i): f"LABEL_{i}" for i in range(3)}
    config |= {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
    (tmp_path / "three" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"a reranker has one label, .* was trained with 3"):
        Reranker(str(tmp_path / "three"))


def test_a_name_without_an_owner_is_one_of_cross_encoders_as_it_is_to_sentence_transformers(monkeypatch):
    monkeypatch.setattr(module, "load_scorer", lambda place, *_: pytest.fail(place))
    with pytest.raises(pytest.fail.Exception, match=r"^cross-encoder/ms-marco-MiniLM-L6-v2$"):
        Reranker("ms-marco-MiniLM-L6-v2")


def test_the_package_has_nothing_else_that_is_made_when_asked_for():
    with pytest.raises(AttributeError, match="has no attribute 'Ranker'"):
        _ = crossrank.Ranker
