"""Against the backbone's modules on the same packed row, which test_cross_encoder holds to the padded model."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.data.batch import collate
from crossrank.errors import ModelError
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.fused import FORWARDS

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 1}
MODERN = {"local_attention": 16, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
          "pad_token_id": 0}  # fmt: skip
KINDS = {
    "bert": ("bert", {"num_hidden_layers": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    "cls, last layer global": ("modernbert", {**MODERN, "num_hidden_layers": 4, "classifier_pooling": "cls"}),
    "cls, last layer local": ("modernbert", {**MODERN, "num_hidden_layers": 3, "classifier_pooling": "cls"}),
    "mean": ("modernbert", {**MODERN, "num_hidden_layers": 4, "classifier_pooling": "mean"}),
}


def _model(kind, **changes):
    model_type, settings = KINDS[kind]
    config = AutoConfig.for_model(model_type, **{**SIZES, **settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AutoModelForSequenceClassification.from_config(config)


@pytest.fixture
def batch(encoder):
    random = np.random.default_rng(7)
    pairs = [(random.integers(5, 100, 3), random.integers(5, 100, n)) for n in (1, 9, 30, 30, 17)]
    packed = collate(encoder, pairs)
    packed.input_ids.clamp_(max=99)  # the encoder's CLS and SEP have larger numbers
    return packed


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_the_modules(kind, batch):
    classifier = _model(kind)
    expected, _ = CrossEncoder(classifier, "packed")._packed(batch)
    hidden, offsets = FORWARDS[KINDS[kind][0]](classifier, batch, False)
    if kind in ("bert", "cls, last layer global"):
        assert offsets.tolist() == [0, 1, 2, 3, 4, 5]
        expected = expected[batch.offsets[:-1].long()]
    else:
        assert offsets.tolist() == batch.offsets.tolist()
    assert expected.std() > 0.1
    torch.testing.assert_close(hidden, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "mean"])
def test_attention_dropout_is_refused_in_training_only(kind, batch):
    name = "attention_probs_dropout_prob" if kind == "bert" else "attention_dropout"
    classifier, forward = _model(kind, **{name: 0.1}), FORWARDS[KINDS[kind][0]]
    with pytest.raises(ModelError, match=r"no dropout.*0\.1.*attention_dropout=0"):
        forward(classifier.train(), batch, False)
    forward(classifier.eval(), batch, False)


class Adapted(torch.nn.Linear):
    """What an adapter puts in a linear layer's place."""


@pytest.mark.parametrize("kind", ["bert", "cls, last layer global"])
def test_a_layer_that_would_be_left_out_is_refused(kind, batch):
    classifier = _model(kind)
    if kind == "bert":
        classifier.bert.encoder.layer[1].attention.self.value = Adapted(32, 32)
    else:
        classifier.model.layers[3].attn.Wqkv = Adapted(32, 96, bias=False)
    with pytest.raises(ModelError, match=r"this one is a Adapted; set model\.attention=packed"):
        FORWARDS[KINDS[kind][0]](classifier, batch, False)


@pytest.mark.parametrize(
    ("kind", "dropout"),
    [("bert", "hidden_dropout_prob"), ("mean", "embedding_dropout"), ("mean", "mlp_dropout")],
)
def test_other_dropout_acts_in_training_only_and_is_the_same_when_recomputed(kind, dropout, batch):
    classifier = _model(kind, **{dropout: 0.5}).train()
    forward = FORWARDS[KINDS[kind][0]]
    gradients = []
    for recompute in (False, True):
        classifier.zero_grad()
        torch.manual_seed(11)
        forward(classifier, batch, recompute)[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in classifier.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)

    assert not torch.equal(forward(classifier, batch, False)[0], forward(classifier, batch, False)[0])
    classifier.eval()
    assert torch.equal(forward(classifier, batch, False)[0], forward(classifier, batch, False)[0])
