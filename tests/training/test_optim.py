import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from crossrank.training.optim import Constant, CosineWarmup, LinearWarmup, decay_groups

RECIPE_STEPS = 36151
TINY = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "num_labels": 1}  # fmt: skip
MODERN = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("total", "ratio"), [(RECIPE_STEPS, 0.1), (10, 0.25), (7, 0.5), (100, 0.0), (1, 0.1), (3, 0.99)]
)
def test_every_factor_equals_transformers(total, ratio):
    warmup = TrainingArguments.get_warmup_steps(SimpleNamespace(warmup_steps=ratio), total)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    ours = LinearWarmup(ratio)
    assert [ours.factor(k, total) for k in range(total + 1)] == [theirs(k) for k in range(total + 1)]
    theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    ours = CosineWarmup(ratio)
    wanted = pytest.approx([theirs(k) for k in range(total + 1)], abs=1e-12)
    assert [ours.factor(k, total) for k in range(total + 1)] == wanted


def test_the_cosine_falls_slowly_fast_and_slowly_and_stays_at_zero():
    """Steps 2 to 8 of 8 are half a cosine; transformers' would rise again after the last."""
    factors = [CosineWarmup(0.25).factor(k, 8) for k in range(11)]
    down = [1, (1 + math.sqrt(3) / 2) / 2, 0.75, 0.5, 0.25, (1 - math.sqrt(3) / 2) / 2, 0, 0, 0]
    assert factors == pytest.approx([0, 0.5, *down])


def test_the_recipes_schedule_is_its_formula():
    schedule = LinearWarmup(0.1)
    assert math.ceil(0.1 * RECIPE_STEPS) == 3616
    assert schedule.factor(0, RECIPE_STEPS) == 0
    assert schedule.factor(3616, RECIPE_STEPS) == 1
    for k in (1, 1000, 3615):
        assert schedule.factor(k, RECIPE_STEPS) == k / 3616
    for k in (3617, 20000, 36150):
        assert schedule.factor(k, RECIPE_STEPS) == (36151 - k) / (36151 - 3616)
    assert schedule.factor(RECIPE_STEPS, RECIPE_STEPS) == schedule.factor(RECIPE_STEPS + 5, RECIPE_STEPS) == 0


def test_constant_is_constant():
    assert {Constant().factor(k, 10) for k in range(11)} == {1.0}


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 3616])
@pytest.mark.parametrize("schedule", [LinearWarmup, CosineWarmup])
def test_a_warmup_that_is_no_share_of_the_steps_is_refused(schedule, ratio):
    with pytest.raises(ValueError, match="share of all steps"):
        schedule(ratio)


@pytest.mark.parametrize("model_type", ["modernbert", "bert", "roberta", "xlm-roberta", "electra", "distilbert"])
def test_decayed_parameters_are_those_of_the_huggingface_trainer(model_type):
    settings = {**TINY, **(MODERN if model_type == "modernbert" else {})}
    if model_type == "distilbert":
        settings = {"vocab_size": 100, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "num_labels": 1}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **settings))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in decay_groups(model))

    assert decayed == set(Trainer.get_decay_parameter_names(None, model))
    assert decayed | plain == set(names.values())
    assert not decayed & plain
    assert plain


def test_the_groups_leave_the_decay_to_the_optimizer_and_take_no_frozen_parameter():
    model = nn.ModuleDict({"dense": nn.Linear(2, 2), "frozen": nn.Linear(2, 2), "root": nn.RMSNorm(2)})
    model["frozen"].requires_grad_(False)
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1.0, weight_decay=0.3)
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [(0.3, 1), (0.0, 2)]
    assert optimizer.param_groups[0]["params"][0] is model["dense"].weight


def test_a_model_that_is_itself_a_norm_decays_nothing():
    assert not decay_groups(nn.LayerNorm(2))[0]["params"]
