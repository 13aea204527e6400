"""The references: the plain transformers classifier, given W + alpha / rank * B A by hand."""

import copy
import importlib.util
import logging
import re
import sys

import pytest
import torch
from conftest import MINILM
from test_cross_encoder import LABELS, _batch, _classifier, _reference
from transformers import AutoModelForSequenceClassification

from crossrank.config import build_training_run
from crossrank.errors import ConfigError, ModelError
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import Pretrained, RandomInit
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.export import export
from crossrank.models.lora import LoRA, merged_state
from crossrank.training.layerwise import LayerwiseAdamW
from crossrank.training.optim import decay_groups

KINDS = ("bert", "modernbert-mean", "modernbert-cls-global", "roberta", "electra")
TINY = RandomInit(MINILM, hidden_size=16)
RANK, ALPHA = 4, 6
LAYERS = {"bert": 6, "modernbert": 4, "roberta": 6, "electra": 6}  # linear layers in each of the encoder's layers


def _adapted(kind, **settings):
    """Return a plain classifier and a copy with adapters that do something: B is zero in a new one."""
    plain = _classifier(kind)
    adapted = LoRA(RANK, ALPHA, **settings).adapt(CrossEncoder(copy.deepcopy(plain)), seed=3).classifier
    generator = torch.Generator().manual_seed(4)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return plain, adapted


def _by_hand(plain, adapted):
    """Return the plain classifier with every product added to its matrix."""
    parameters = dict(adapted.named_parameters())
    merged = copy.deepcopy(plain)
    for name, weight in merged.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in parameters:
            a, b = (parameters[f"{layer}.lora_{part}.default.weight"] for part in "AB")
            weight.data += ALPHA / RANK * (b @ a)
    return merged


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_matrices_that_were_added_to_by_hand(kind, attention, encoder):
    plain, adapted = _adapted(kind)
    expected = _reference(_by_hand(plain, adapted), encoder).detach()
    assert (expected - _reference(plain, encoder)).abs().max() > 0.05
    torch.testing.assert_close(CrossEncoder(adapted, attention)(_batch(encoder)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_and_the_head_are_trained(kind):
    plain, adapted = _adapted(kind)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if ".lora_" in name}
    assert len(adapters) == 2 * LAYERS[plain.config.model_type] * plain.config.num_hidden_layers
    assert trained - adapters == {
        name for name, _ in plain.named_parameters() if not name.startswith(f"{plain.base_model_prefix}.")
    } | ({"bert.pooler.dense.weight", "bert.pooler.dense.bias"} if kind == "bert" else set())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_padded_model_and_only_of_what_is_trained(kind, recompute, encoder):
    _, adapted = _adapted(kind)
    found = {}
    for attention, again in (("packed", recompute), ("padded", False)):
        model = CrossEncoder(copy.deepcopy(adapted), attention, again)
        WeightedBCE(5.0)(model(_batch(encoder)), LABELS, torch.zeros(8)).backward()
        found[attention] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found["packed"].keys() == {f"classifier.{n}" for n, p in adapted.named_parameters() if p.requires_grad}
    assert found["packed"].keys() == found["padded"].keys()
    largest = max(gradient.norm() for gradient in found["padded"].values())
    for name, expected in found["padded"].items():
        negligible = "key.lora_" in name  # of what is added to every key, softmax sees nothing
        assert negligible or expected.norm() > 0
        assert (found["packed"][name] - expected).norm() < 2e-5 * (largest if negligible else expected.norm()), name


@pytest.mark.parametrize("kind", ["bert", "modernbert-mean"])
def test_bfloat16_autocast_stays_near_float32(kind, encoder):
    plain, adapted = _adapted(kind)
    expected = _reference(_by_hand(plain, adapted), encoder).detach()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = CrossEncoder(adapted)(_batch(encoder))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=0.02 * float(expected.abs().max()), rtol=0.03)


@pytest.mark.parametrize("kind", ["bert", "modernbert-mean"])
def test_the_export_is_a_plain_model_that_scores_the_same_without_peft(kind, encoder, tmp_path, monkeypatch):
    plain, adapted = _adapted(kind)
    model = CrossEncoder(adapted)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folder = export(model, encoder, tmp_path / "model")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    monkeypatch.setitem(sys.modules, "peft", None)  # importing it fails
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert loaded.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(_reference(loaded, encoder), model(_batch(encoder)), atol=1e-5, rtol=0)
    reranker = Pretrained(str(folder)).build(None)
    assert reranker.attention == "fused"
    torch.testing.assert_close(reranker(_batch(encoder)), model(_batch(encoder)), atol=1e-5, rtol=0)


def test_a_plain_classifiers_state_is_its_own():
    plain = _classifier("bert")
    merged = merged_state(plain)
    assert merged.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, merged[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_a_new_one_is_a_function_of_the_seed_and_scores_as_before(model_type, encoder, caplog):
    backbone, before = RandomInit(MINILM, model_type, hidden_size=16), torch.get_rng_state()
    first, again, other = (LoRA(2).adapt(backbone.build(1), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert {name for name, value in first.items() if not torch.equal(value, other[name])} == {
        name for name in first if ".lora_A." in name
    }
    model = LoRA(2).adapt(backbone.build(1), 1)
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(model(_batch(encoder)), backbone.build(1)(_batch(encoder)), atol=1e-6, rtol=0)

    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, total = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    assert f"LoRA trains {trained:,} of {total:,} parameters" in caplog.text
    assert f"no fused forward for adapted {model_type}: its own modules are used" in caplog.text


def test_how_attention_is_computed_and_whether_layers_are_recomputed_stays():
    padded = LoRA().adapt(RandomInit(MINILM, hidden_size=16, attention="padded", recompute=True).build(0), 0)
    assert (padded.attention, padded.recompute, padded.adapted) == ("padded", True, True)
    assert (TINY.build(0).attention, TINY.build(0).adapted) == ("fused", False)
    assert LoRA().adapt(TINY.build(0), 0).attention == "packed"


def test_dropout_acts_on_what_goes_into_the_adapters_in_training_only(encoder):
    _, adapted = _adapted("bert", dropout=0.5)
    model = CrossEncoder(adapted)
    torch.manual_seed(0)
    assert not torch.equal(model(_batch(encoder)), model(_batch(encoder)))
    model.eval()
    assert torch.equal(model(_batch(encoder)), model(_batch(encoder)))


@pytest.mark.parametrize(
    ("kind", "wanted", "layers"),
    [
        ("bert", ["query", "value"], r"attention\.self\.(query|value)"),
        ("bert", ["dense"], r"(attention\.output|intermediate|output)\.dense"),  # and not the pooler's
        ("modernbert-mean", ["Wqkv"], r"attn\.Wqkv"),
    ],
)
def test_layers_can_be_named_by_the_last_part_of_their_names(kind, wanted, layers):
    _, adapted = _adapted(kind, target_modules=wanted)
    found = {name for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    every = {name for name, module in _adapted(kind)[1].named_modules() if hasattr(module, "lora_A")}
    assert found == {name for name in every if re.search(rf"\.\d\.{layers}$", name)}
    assert 0 < len(found) < len(every)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    model = RandomInit(MINILM, "bert", hidden_size=16).build(0)
    with pytest.raises(ModelError, match="of bert is called 'Wqkv'; target_modules can name: query, key, value, dense"):
        LoRA(target_modules=["query", "Wqkv"]).adapt(model, 0)


def test_the_optimizer_holds_nothing_for_what_is_frozen():
    model = LoRA(2).adapt(RandomInit(MINILM, "bert", hidden_size=16).build(0), 0)
    chosen = {id(p) for group in decay_groups(model) for p in group["params"]}
    assert chosen == {id(p) for p in model.parameters() if p.requires_grad}


def test_layerwise_rates_are_those_of_the_layers_that_adapters_stand_in():
    model = LoRA(2).adapt(RandomInit(MINILM, "bert", hidden_size=16, layers=2).build(0), 0)
    groups = LayerwiseAdamW(lr=1.0, layer_decay=0.5).groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert set(rates.values()) == {1.0, 0.5, 0.25}  # the head, two layers, and no embeddings
    for name, rate in rates.items():
        assert rate == (0.5 if ".layer.1." in name else 0.25 if ".layer.0." in name else 1.0), name


def test_an_adapted_model_finds_its_way_and_is_refused_the_fused_one(caplog):
    _, adapted = _adapted("modernbert-mean")
    with caplog.at_level(logging.INFO):
        assert CrossEncoder(adapted).attention == "packed"
    with pytest.raises(ModelError, match="no place for adapters; set attention to auto, packed or padded"):
        CrossEncoder(adapted, "fused")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0}, "alpha, by which the adapters are scaled, must be at least 1, got 0"),
        ({"dropout": 1.0}, "from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**settings)


def test_without_peft_the_gate_names_the_extra(monkeypatch):
    from conftest import composed

    cfg = composed("experiment=smoke", "run_dir=nowhere", "adapter=lora")
    assert build_training_run(cfg).adapter == LoRA()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find_spec(name))
    with pytest.raises(ConfigError, match=r"adapter: LoRA needs peft, which is not installed; .* -e '\.\[lora\]'"):
        build_training_run(cfg)
