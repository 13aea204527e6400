"""What every loss, schedule, source, miner, evaluator and backbone in conf/ promises; a new one is covered unasked."""

import inspect
import json
import typing

import pytest
import torch
from test_configs import COMPONENT_CHOICES, run_with

from crossrank.data.mining import Miner
from crossrank.data.pairs import Source
from crossrank.evaluation import Evaluator
from crossrank.hub import Asset
from crossrank.losses import Loss
from crossrank.models.backbones import Backbone
from crossrank.models.lora import Adapter
from crossrank.training.optim import Schedule

PAIRS = 24


def choices(group):
    return [choice for name, choice in COMPONENT_CHOICES if name == group]


def built(group, choice):
    return getattr(run_with(group, choice), group)


def batch(seed, scale=2.0):
    """Four questions with six documents each, the first of each relevant, in any order."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(PAIRS, generator=generator) * scale
    labels = torch.zeros(4, 6)
    labels[:, 0] = 1
    order = torch.randperm(PAIRS, generator=generator)
    query_index = torch.arange(4).repeat_interleave(6)
    return logits, labels.flatten()[order], query_index[order]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("choice", choices("loss"))
class TestLoss:
    def test_is_a_finite_float32_scalar(self, choice, seed):
        loss = built("loss", choice)
        logits, labels, query_index = batch(seed)
        for scale, dtype in ((1.0, torch.float32), (50.0, torch.float32), (0.0, torch.float32), (1.0, torch.bfloat16)):
            value = loss((logits * scale).to(dtype), labels, query_index)
            assert value.shape == ()
            assert value.dtype == torch.float32
            assert torch.isfinite(value)
            assert value == loss((logits * scale).to(dtype).float(), labels, query_index)

    def test_sends_a_finite_gradient_to_the_logits_and_has_nothing_to_train(self, choice, seed):
        loss = built("loss", choice)
        logits, labels, query_index = batch(seed)
        before = labels.clone(), query_index.clone()
        logits.requires_grad_()
        loss(logits, labels, query_index).backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.count_nonzero() > 0
        assert labels.grad is None
        assert list(getattr(loss, "parameters", list)()) == []
        assert torch.equal(labels, before[0])
        assert torch.equal(query_index, before[1])

    def test_does_not_depend_on_the_order_of_pairs(self, choice, seed):
        loss = built("loss", choice)
        logits, labels, query_index = batch(seed)
        order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(100 + seed))
        permuted = loss(logits[order], labels[order], query_index[order])
        torch.testing.assert_close(permuted, loss(logits, labels, query_index), rtol=1e-5, atol=1e-6)

    def test_where_all_score_alike_it_pulls_every_positive_up_and_every_negative_down(self, choice, seed):
        """From other scores it need not: MSE and ListNet have a target, and LambdaLoss weighs pairs by their places."""
        loss = built("loss", choice)
        _, labels, query_index = batch(seed)
        logits = torch.full((PAIRS,), 0.5, requires_grad=True)
        loss(logits, labels, query_index).backward()
        assert (logits.grad[labels == 1] < 0).all()
        assert (logits.grad[labels == 0] > 0).all()

    def test_training_on_it_alone_ranks_every_positive_first(self, choice, seed):
        loss = built("loss", choice)
        logits, labels, query_index = batch(seed)
        logits.requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            loss(logits, labels, query_index).backward()
            optimizer.step()
        worst = [logits[(query_index == q) & (labels == 1)].min() for q in range(4)]
        best = [logits[(query_index == q) & (labels == 0)].max() for q in range(4)]
        assert all(a > b for a, b in zip(worst, best, strict=True))


@pytest.mark.parametrize("total", [1, 2, 3, 10, 1000, 36_151])
@pytest.mark.parametrize("choice", choices("schedule"))
def test_schedule_gives_a_share_of_the_learning_rate_at_every_step(choice, total):
    schedule = built("schedule", choice)
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(isinstance(factor, float) for factor in factors)
    if total >= 10:
        assert max(factors) > 0.9  # nearly all of lr is reached at some step


PROTOCOLS = {
    "source": Source, "miner": Miner, "model": Backbone, "adapter": Adapter, "schedule": Schedule, "loss": Loss,
}  # fmt: skip


def methods(protocol):
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)} | {
        name: member for name, member in vars(protocol).items() if name == "__call__"
    }


def shape(function):
    """Names and kinds of the parameters, without self."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.kind) for p in parameters]


def check_protocol(component, protocol):
    names = [name for name in methods(protocol) if name == "__call__" or not name.startswith("_")]
    assert names
    for name in names:
        promised = methods(protocol)[name]
        kept = getattr(type(component), name)
        if isinstance(component, torch.nn.Module) and name == "__call__":
            kept = type(component).forward
        assert shape(kept) == shape(promised), name
        returns = typing.get_type_hints(promised)["return"], typing.get_type_hints(kept)["return"]
        assert returns[0] == returns[1] or issubclass(returns[1], typing.get_origin(returns[0]) or returns[0])


@pytest.mark.parametrize(("group", "choice"), [pair for pair in COMPONENT_CHOICES if pair[0] in PROTOCOLS])
def test_component_keeps_its_protocol(group, choice):
    check_protocol(built(group, choice), PROTOCOLS[group])


@pytest.mark.parametrize("choice", choices("source"))
def test_a_sources_id_is_that_of_plain_ingredients_each_in_one_place(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").write_text("what test_configs names where a file is wanted")
    source = built("source", choice)
    ingredients = source.ingredients()
    assert ingredients.content
    assert not ingredients.content.keys() & ingredients.split.keys()
    assert json.loads(json.dumps(ingredients)) == json.loads(json.dumps(source.ingredients()))
    assert source.fingerprint() == ingredients.fingerprint


@pytest.mark.parametrize("choice", choices("evaluators"))
def test_evaluator_keeps_its_protocol(choice):
    run = run_with("evaluators", choice)
    for evaluator in run.evaluation.evaluators.values():
        check_protocol(evaluator, Evaluator)
        assert isinstance(evaluator.at_k, int)
        assert all(isinstance(name, str) and "/" not in name for name in evaluator.datasets)
        assert len(set(evaluator.datasets)) == len(evaluator.datasets) > 0


@pytest.mark.parametrize(
    ("group", "choice"), [pair for pair in COMPONENT_CHOICES if pair[0] in ("source", "miner", "model", "evaluators")]
)
def test_what_has_to_be_fetched_is_known_without_fetching(group, choice, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: pytest.fail("fetched"))
    run = run_with(group, choice)
    parts = run.evaluation.evaluators.values() if group == "evaluators" else [getattr(run, group)]
    for part in parts:
        assets = part.assets()
        assert all(isinstance(asset, Asset) for asset in assets)
        own = [asset for asset in assets if asset.path.startswith("pypi:") or asset.path == "given"]  # the user's
        assert all(asset.revision for asset in assets if asset not in own), "a hub asset without a pinned revision"
