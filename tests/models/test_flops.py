import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.models.flops import layer_parameters, useful_flops

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
         "num_labels": 1, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip


def _model(kind):
    config = AutoConfig.for_model(kind, **SIZES, attn_implementation="eager")
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "roberta"])
def test_the_counted_parameters_are_those_of_the_layers_matrices(kind):
    model = _model(kind)
    layers = model.base_model.layers if kind == "modernbert" else model.base_model.encoder.layer
    assert layer_parameters(model.config) == sum(p.numel() for p in layers.parameters() if p.ndim == 2)


def test_by_hand():
    """2 layers of 4*64 + 2*96 weights; sequences of 3 and 5 tokens."""
    config = AutoConfig.for_model("bert", hidden_size=8, intermediate_size=12, num_hidden_layers=2)
    expected = 2 * 896 * 8 + 4 * 8 * 2 * (9 + 25)
    assert useful_flops(config, 8, 34, passes=1) == expected
    assert useful_flops(config, 8, 34, passes=3) == 3 * expected
    assert useful_flops(config, 8, 34, passes=3, frozen=True) == 3 * expected - 2 * 896 * 8


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_forward_pass_is_what_torch_counts(kind):
    """But for the head, which sees one token."""
    model, tokens = _model(kind), 40
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model.base_model(input_ids=torch.ones(1, tokens, dtype=torch.long))
    total = counted.get_total_flops()
    if kind == "bert":
        total -= 2 * 16 * 16  # the pooler
    assert useful_flops(model.config, tokens, tokens**2, passes=1) == pytest.approx(total, rel=2e-3)
