"""PaddedScorer against sentence-transformers' predict; which way a model takes."""

import logging
import shutil

import numpy as np
import pytest
import torch
from conftest import MINILM
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from crossrank.errors import AssetError, ModelError
from crossrank.hub import Asset, resolve
from crossrank.inference.padded import PaddedScorer, at_length, load_scorer
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import Pretrained, RandomInit
from crossrank.models.export import export

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
SHAPE = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "bert": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}


def pairs(count=30):
    draws = np.random.default_rng(2)
    lengths = draws.integers(1, 200, count)  # some are cut at 128
    return [(" ".join(draws.choice(WORDS, 4)), " ".join(draws.choice(WORDS, n))) for n in lengths]


def write_model(folder, kind, labels=1, head=True, pad=True):
    tokenizer = AutoTokenizer.from_pretrained(str(resolve(Asset("model", MINILM))))
    tokenizer.model_max_length = 128
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), num_labels=labels, pad_token_id=0 if pad else None, **SHAPE[kind]
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    (model if head else model.base_model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "distilbert", "distilbert")


@pytest.fixture(scope="module")
def reference(distilbert):
    return CrossEncoder(str(distilbert), device="cpu")


def predicted(model, texts):
    return model.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)


@pytest.mark.parametrize("kind", ["distilbert", "gpt2"])
def test_a_backbone_that_the_packed_path_does_not_know_is_scored_as_predict_does(kind, tmp_path, caplog):
    folder = write_model(tmp_path / kind, kind)
    expected = predicted(CrossEncoder(str(folder), device="cpu"), pairs())
    scorer = load_scorer(str(folder))
    found = scorer(pairs())
    assert isinstance(scorer, PaddedScorer)
    assert found.dtype == np.float32
    assert found.std() > 0.01
    np.testing.assert_array_equal(found, expected)
    (warning,) = [r.message for r in caplog.records if r.name == "crossrank.inference.padded"]
    assert kind in warning
    assert "padded" in warning
    assert "slower" in warning


def test_a_backbone_that_it_knows_takes_the_packed_path(tmp_path, encoder, caplog):
    folder = export(RandomInit(MINILM, hidden_size=32).build(1), encoder, tmp_path / "model")
    scorer = load_scorer(str(folder), max_length=32, tokens_per_batch=100, precision="bf16")
    assert isinstance(scorer, PairScorer)
    assert (scorer.encoder.max_length, scorer.tokens_per_batch, scorer.autocast) == (32, 100, torch.bfloat16)
    assert not scorer.model.training
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_equal_pairs_have_equal_scores_and_nothing_has_none(distilbert):
    scorer = load_scorer(str(distilbert))
    found = scorer([*pairs(), *pairs()])
    np.testing.assert_array_equal(found[:30], found[30:])
    assert scorer([]).shape == scorer.truncated([]).shape == (0,)


@pytest.mark.parametrize("length", [16, 40])
def test_another_length_cuts_as_sentence_transformers_does(distilbert, length):
    expected = predicted(CrossEncoder(str(distilbert), device="cpu", max_length=length), pairs())
    scorer = load_scorer(str(distilbert), max_length=length)
    np.testing.assert_array_equal(scorer(pairs()), expected)
    whole = load_scorer(str(distilbert))
    np.testing.assert_array_equal(at_length(whole, length)(pairs()), expected)
    assert whole.model.max_seq_length == 128  # left as it was
    assert not np.array_equal(whole(pairs()), expected)


def test_truncated_pairs_are_those_with_more_tokens(distilbert, reference):
    scorer = load_scorer(str(distilbert))
    lengths = [len(reference.tokenizer(q, d, truncation=False, verbose=False)["input_ids"]) for q, d in pairs()]
    assert scorer.truncated(pairs()).tolist() == [length > 128 for length in lengths]
    assert 0 < scorer.truncated(pairs()).mean() < 1
    edge = sorted(lengths)[10]
    assert at_length(scorer, edge).truncated(pairs()).tolist() == [length > edge for length in lengths]


def test_bfloat16_is_autocast(distilbert, reference):
    found = load_scorer(str(distilbert), precision="bf16")(pairs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(found, predicted(reference, pairs()))
    assert not np.array_equal(found, predicted(reference, pairs()))


def test_another_length_of_a_packed_scorer_is_that_of_its_encoder(encoder):
    scorer = PairScorer(RandomInit(MINILM, hidden_size=32).build(1), encoder, 300)
    short = at_length(scorer, 20)
    assert (short.encoder.max_length, short.tokens_per_batch, short.model) == (20, 300, scorer.model)
    assert scorer.encoder.max_length == 64


def test_a_head_that_is_a_module_of_its_own_takes_the_padded_path(tmp_path):
    bert = Transformer(str(write_model(tmp_path / "bert", "bert", head=False)))
    head = Dense(32, 1, module_output_name="scores", activation_function=torch.nn.Identity())
    modular = CrossEncoder(modules=[bert, Pooling(32, "cls"), head], device="cpu")
    modular.save_pretrained(str(tmp_path / "modular"))
    scorer = load_scorer(str(tmp_path / "modular"))
    assert isinstance(scorer, PaddedScorer)
    np.testing.assert_array_equal(scorer(pairs()), predicted(modular, pairs()))


def test_a_prompt_takes_the_padded_path_and_no_prompt_does_not(tmp_path):
    model = CrossEncoder(str(write_model(tmp_path / "bert", "bert")), device="cpu")
    model.save_pretrained(str(tmp_path / "plain"))
    plain = load_scorer(str(tmp_path / "plain"))
    assert isinstance(plain, PairScorer)
    model.prompts, model.default_prompt_name = {"python": "rivers in python "}, "python"
    model.save_pretrained(str(tmp_path / "prompted"))
    prompted = load_scorer(str(tmp_path / "prompted"))(pairs())
    np.testing.assert_array_equal(prompted, predicted(model, pairs()))
    assert not np.allclose(prompted, plain(pairs()), atol=1e-3)


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "distilbert", "labels": 3}, "one label, this model has 3"),
    ({"kind": "bert", "labels": 3}, "one label, .* was trained with 3"),
    ({"kind": "distilbert", "head": False}, "no trained reranker: its distilbert has no classification head"),
    ({"kind": "bert", "head": False}, "no trained reranker: it holds no classifier"),
])  # fmt: skip
def test_what_is_no_reranker_is_refused(options, message, tmp_path):
    folder = write_model(tmp_path / "model", **options)
    with pytest.raises(ModelError, match=message):
        load_scorer(str(folder))


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_length_that_the_model_cannot_take_is_refused(kind, tmp_path):
    folder = write_model(tmp_path / "model", kind)
    with pytest.raises(ModelError, match="max_length 4096 is more than the"):
        load_scorer(str(folder), max_length=4096)


def test_a_model_without_padding_token_is_one_sentence(tmp_path):
    scorer = load_scorer(str(write_model(tmp_path / "model", "gpt2", pad=False)))
    with pytest.raises(ModelError, match="cannot score with this model"):
        scorer(pairs())


def test_what_is_not_there_or_broken_is_named(distilbert, tmp_path):
    with pytest.raises(AssetError, match="no such folder"):
        load_scorer("./nowhere/at-all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_scorer(str(tmp_path / "empty"))
    broken = tmp_path / "broken"
    shutil.copytree(distilbert, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no cross-encoder that sentence-transformers can load"):
        load_scorer(str(broken))


def test_an_embedding_model_is_no_reranker():
    with pytest.raises(ModelError, match="no trained reranker"):
        load_scorer(MINILM)
    assert Pretrained(MINILM).assets()  # the packed path is what refused it
