import copy

import exported
import numpy as np
import pytest
import torch

from crossrank.inference.in_memory import InMemory
from crossrank.models.attention import PACKED


@pytest.mark.parametrize("kind", exported.KINDS)
def test_the_reference_is_what_the_classifier_makes_of_the_tokenizers_own_batches(kind):
    model, encoder = exported.built(kind)
    memory = InMemory(model, encoder)
    classifier = copy.deepcopy(model.classifier).eval()
    classifier.set_attn_implementation("eager")
    tokenizer, expected, ids = copy.deepcopy(encoder.tokenizer), [], []
    for group in memory.probe.groups:
        texts = map(list, zip(*group, strict=True))
        inputs = tokenizer(*texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
        with torch.inference_mode():
            expected += classifier(**inputs).logits[:, 0].tolist()
        ids += [
            row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(memory.padded, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(memory.in_use, expected, atol=1e-5, rtol=0)
    assert memory.ids[:-1] == ids
    assert len(memory.ids[-1]) == 48


def test_the_model_is_left_as_it_was():
    model, encoder = exported.built("bert")
    model.train()
    model.classifier.dropout.p = 0.5
    model.classifier.bert.eval()
    modes = [module.training for module in model.modules()]
    first, again = InMemory(model, encoder).padded, InMemory(model, encoder).padded
    np.testing.assert_array_equal(first, again)  # without dropout
    assert [module.training for module in model.modules()] == modes
    assert (model.attention, model.config._attn_implementation) == ("fused", PACKED)


def test_a_model_in_half_precision_is_asked_in_float32_and_stays_what_it_is():
    model, encoder = exported.built("bert")
    half = copy.deepcopy(model).bfloat16()
    rounded = copy.deepcopy(half).float()
    np.testing.assert_array_equal(InMemory(half, encoder).in_use, InMemory(rounded, encoder).in_use)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
