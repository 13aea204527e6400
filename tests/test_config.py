"""The gate: every mistake in a config is refused before any compute, by its path, all of them at once."""

import importlib.util
import re
import shutil
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from conftest import CONF, ROOT, composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.config import build_parts, build_training_run
from crossrank.errors import ConfigError
from crossrank.gate import validate
from crossrank.run import TrainingRun
from crossrank.schema import RunConfig


def smoke(*overrides, conf=CONF):
    words = ["experiment=smoke", "run_dir=nowhere", *overrides]
    if conf == CONF:
        return composed(*words)
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("train", words)


def problems_of(*overrides, **options):
    with pytest.raises(ConfigError) as error:
        build_training_run(smoke(*overrides, **options))
    assert all(problem in str(error.value) for problem in error.value.problems)
    assert len(set(error.value.problems)) == len(error.value.problems)
    return error.value.problems


class Holder:
    """A component that holds others."""

    def __init__(self, items: list[Any], named: Mapping[str, Any]) -> None:
        self.items, self.named = items, named


BCE = "{_target_:crossrank.losses.bce.WeightedBCE,pos_weight:2.0}"
TYPO = "{_target_:crossrank.losses.bce.WeightedBCE,pos_wieght:2.0}"
HOLDER = "+logger.x={_target_:test_config.Holder,items:[%s,%s],named:{a:%s}}"


def test_a_good_config_is_built_and_nothing_is_computed(monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *args, **options: pytest.fail("reached for the network"))
    run = build_training_run(smoke())
    assert isinstance(run, TrainingRun)
    assert (run.name, run.seed, str(run.run_dir)) == ("smoke", 12, "nowhere")
    assert run.policy.negatives == 5
    assert run.loss.pos_weight == 5  # follows policy.negatives
    assert isinstance(run.evaluation, PeriodicEvaluation)
    assert list(run.evaluation.evaluators) == ["held_out"]
    assert not run.run_dir.exists()


UNKNOWN = {  # override: path of the only problem, and what was meant
    "+sede=1": ("sede", "did you mean 'seed'?"),
    "+zzz=1": ("zzz", "known: name, seed, run_dir"),
    "+data.pairs_per_stp=8": ("data.pairs_per_stp", "did you mean 'pairs_per_step'?"),
    "+source.qqq=1": ("source.qqq", "known: packages, dev_size, limit, seed"),
    "+optimizer.learning_rate=1": ("optimizer.learning_rate", "known: params, lr, betas"),
    "+callbacks.evaluation.every_n_step=1": ("callbacks.evaluation.every_n_step", "did you mean 'every_n_steps'?"),
    "+evaluators.held_out.dept=5": ("evaluators.held_out.dept", "did you mean 'depth'?"),
    "+evaluators.held_out.miner.k2=1": ("evaluators.held_out.miner.k2", "known: k1, b"),
    HOLDER % (BCE, TYPO, BCE): ("logger.x.items[1].pos_wieght", "did you mean 'pos_weight'?"),
    HOLDER % (BCE, BCE, TYPO): ("logger.x.named.a.pos_wieght", "did you mean 'pos_weight'?"),
    "+loss.deep.er=1": ("loss.deep", "known: pos_weight"),
    "+model._convert_=all": ("model._convert_", "no such key"),  # what Hydra alone would take
}


@pytest.mark.parametrize("override", UNKNOWN)
def test_unknown_key(override):
    path, meant = UNKNOWN[override]
    (problem,) = problems_of(override)
    assert problem.startswith(f"{path}: no such key; ")
    assert meant in problem


def test_an_unknown_key_inside_an_experiments_yaml(tmp_path):
    """Hydra itself merges it silently."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    file = tmp_path / "conf" / "experiment" / "smoke.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("  pairs_per_step: 8", "  pairs_per_stp: 8\n  pairs_per_step: 8"), encoding="utf-8")
    assert problems_of(conf=tmp_path / "conf") == [
        "data.pairs_per_stp: no such key; did you mean 'pairs_per_step'?",
    ]


BAD_TYPES = {
    "seed=abc": "seed",
    "name=7": "name",
    "source.dev_size=many": "source.dev_size",
    "source.dev_size=2.5": "source.dev_size",
    "source.packages=stdlib": "source.packages",
    "++source.seed={a:1}": "source.seed",
    "policy.absolute_margin=none": "policy.absolute_margin",
    "optimizer.lr=fast": "optimizer.lr",
    "optimizer.lr=null": "optimizer.lr",
    "optimizer.betas=[0.9,x]": "optimizer.betas",
    "model.attention=flash": "model.attention",
    "trainer.precision=16": "trainer.precision",
    "callbacks.evaluation.every_n_steps=often": "callbacks.evaluation.every_n_steps",
    "evaluators.held_out.always_rerank_positives=3": "evaluators.held_out.always_rerank_positives",
    "evaluators.held_out.miner=bm25": "evaluators.held_out.miner",  # a name where a component is wanted
    "+evaluators.held_out.miner.k1=high": "evaluators.held_out.miner.k1",
    "+logger.csv=null": "logger.csv",
}


@pytest.mark.parametrize("override", BAD_TYPES)
def test_wrong_type(override):
    (problem,) = problems_of(override)
    assert problem.startswith(f"{BAD_TYPES[override]}: ")


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_logger_whose_package_is_missing_is_named_with_its_extra(name, monkeypatch):
    build_training_run(smoke(f"logger={name}"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *a: None if wanted == name else find(wanted, *a))
    assert problems_of(f"logger={name}") == [
        f"logger.{name}: {name} is not installed; pip install -e '.[{name}]', or leave it out"
    ]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [re.match(r"[\w-]+", line)[0] for line in extras[name]] == [name]


def test_a_whole_number_is_good_enough_for_a_float():
    assert build_training_run(smoke("optimizer.lr=1", "policy.absolute_margin=0")).policy.absolute_margin == 0


MISSING = {
    ("source=pairs", "~source.packages"): "source.path",
    ("~evaluators.held_out", "evaluators=collection", "monitor=eval/collection/c/map"): "evaluators.collection.paths",
    ("~model",): "model",
    ("~loss._target_",): "loss._target_",
    ("+logger.x.save_dir=here",): "logger.x._target_",
    ("~callbacks.evaluation.monitor",): "callbacks.evaluation.monitor",
    ("~evaluators.held_out.source",): "evaluators.held_out.source",
    ("optimizer._partial_=false",): "optimizer.params",
}


@pytest.mark.parametrize("overrides", MISSING, ids=" ".join)
def test_missing_value(overrides):
    path = MISSING[overrides]
    (problem,) = [p for p in problems_of(*overrides) if "_target_" not in p or "_target_" in path]
    assert problem == f"{path}: required and missing; give it as {path}=..."


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("loss", "crossrank.losses.bce.WeightedBCEE"),
        ("loss", "crossrank.losses.bec.WeightedBCE"),
        ("loss", "nowhere.at.all"),
        ("loss", "WeightedBCE"),
        ("evaluators.held_out.miner", "crossrank.data.miners.bm26.BM25Miner"),
    ],
)
def test_bad_target(path, target):
    (problem,) = problems_of(f"{path}._target_={target}")
    assert problem == f"{path}._target_: nothing can be imported as {target!r}"


@pytest.mark.parametrize(
    ("override", "path"), [("seed=${sed}", "seed"), ("loss.pos_weight=${policy.n}", "loss.pos_weight")]
)
def test_bad_interpolation(override, path):
    (problem,) = problems_of(override)
    assert problem.startswith(f"{path}: Interpolation key")


OUT_OF_RANGE = {
    "policy.rank_min=-1": ("policy", "got -1"),
    "policy.negatives=0": ("policy", "at least 1, got 0"),
    "policy.negatives=101": ("policy", "the pool holds 100 candidates"),
    "data.pairs_per_step=0": ("data", "steps per epoch would be 0"),
    "data.questions_per_step=0": ("data", "questions_per_step must be at least 1, got 0"),
    "data.in_batch_negatives=-1": ("data", "counts documents from 0, got -1"),
    "data.in_batch_negatives=4": ("data", "needs questions_per_step to be at least 2, got None"),
    "data.max_steps=0": ("data", "max_steps >= 1"),
    "data.workers=-1": ("data", "at least 0, got -1"),
    "optimizer.lr=-1": ("optimizer", "Invalid learning rate: -1"),
    "optimizer.betas=[0.9,1.5]": ("optimizer", "Invalid beta"),
    "schedule.warmup_ratio=2": ("schedule", "got 2"),
    "loss.pos_weight=0": ("loss", "above 0, got 0"),
    "trainer.accumulate_grad_batches=0": ("trainer", "at least 1"),
    "trainer.gradient_cache=0": ("trainer", "at least 1, got 0"),
    "model.max_length=2": ("model", "max_length at least 8"),
    "model.heads=3": ("model", "multiple of heads"),
    "callbacks.evaluation.every_n_steps=0": ("callbacks.evaluation", "at least 1, got 0"),
    "source.dev_size=0": ("source", "at least 1, got 0"),  # also reached through evaluators.held_out.source
    "evaluators.held_out.depth=1": ("evaluators.held_out", "depth must be at least 2"),
    "+evaluators.held_out.miner.b=3": ("evaluators.held_out.miner", "0 <= b <= 1"),
}


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_out_of_range(override):
    path, reason = OUT_OF_RANGE[override]
    found = [p for p in problems_of(override) if not override.startswith("policy.neg") or p.startswith("policy")]
    (problem,) = found
    assert problem.startswith(f"{path}: ")
    assert reason in problem


IMPOSSIBLE = {
    ("monitor=eval/held_out/dev/ndgc@10",): (
        "callbacks.evaluation.monitor",
        "did you mean 'eval/held_out/dev/ndcg@10'?",
    ),
    ("monitor=eval/gooaq_dev/gooaq-dev/ndcg@10",): ("callbacks.evaluation.monitor", "did you mean 'eval/held_out/"),
    ("monitor=x",): ("callbacks.evaluation.monitor", "they produce: eval/held_out/dev/map"),
    ("evaluators.held_out.at_k=5",): ("callbacks.evaluation.monitor", "did you mean 'eval/held_out/dev/ndcg@5'?"),
    ("data.pool_depth=50",): ("data.pool_depth", "policy.rank_max = 100"),
    ("miner=none", "teacher=cross_encoder", "teacher.path=x"): ("teacher", "miner=none finds nothing"),
    ("miner=none", "~evaluators.held_out", "evaluators=gooaq_dev", "monitor=eval/gooaq_dev/gooaq-dev/ndcg@10"): (
        "evaluators.gooaq_dev",
        "miner=none finds nothing to rerank",
    ),
    ("data.pairs_per_step=9", "trainer.accumulate_grad_batches=2"): ("data.pairs_per_step", "9 is not a multiple"),
    ("data.questions_per_step=9", "trainer.accumulate_grad_batches=2"): ("data.questions_per_step", "9 is not a"),
    ("adapter=lora", "model.attention=fused"): ("model.attention", "no place for adapters; set it to auto or packed"),
    ("callbacks=[throughput,ema]", "~callbacks.evaluation", "~callbacks.checkpoint"): (
        "callbacks.ema",
        "an average is judged by evaluating it, and no callback evaluates",
    ),
    ("trainer.gradient_cache=2", "trainer.accumulate_grad_batches=2"): (
        "trainer",
        "on one device: it needs accumulate",
    ),
    ("loss=multiple_negatives_cached", "trainer=ddp"): (
        "trainer",
        "it needs devices=1, strategy=auto, got 2, ddp",
    ),
    ("data.questions_per_step=1", "data.in_batch_negatives=4"): ("data", "at least 2, got 1"),
    ("loss=listnet", "data.questions_per_step=null"): (
        "data.questions_per_step",
        "null spreads a question over many batches and ListNet compares its documents; set it to 8, say",
    ),
}


@pytest.mark.parametrize("overrides", IMPOSSIBLE, ids=" ".join)
def test_impossible_combination(overrides):
    path, reason = IMPOSSIBLE[overrides]
    (problem,) = problems_of(*overrides)
    assert problem.startswith(f"{path}: ")
    assert reason in problem


def test_what_no_process_has_whole_is_not_averaged(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    callbacks = "callbacks=[evaluation,throughput,checkpoint,checkpoint_mean]"
    build_training_run(smoke(callbacks, "trainer=ddp", "trainer.devices=2"))
    assert problems_of(callbacks, "trainer=fsdp", "trainer.devices=2") == [
        "callbacks.checkpoint_mean: under fsdp no process has all weights to average; use trainer=ddp"
    ]


@pytest.mark.parametrize("name", ["../../home", "a/b", ".."])
def test_an_average_whose_name_leads_out_of_its_folder_is_refused(name):
    cfg = smoke("callbacks=[evaluation,throughput,checkpoint,ema]")
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks[name] = cfg.callbacks.pop("ema")
    with pytest.raises(ConfigError, match="a folder is called after an average, so its name is a word"):
        build_training_run(cfg)


def test_combinations_at_the_limit_are_possible():
    build_training_run(smoke("data.pool_depth=100", "data.pairs_per_step=8", "trainer.accumulate_grad_batches=4"))
    build_training_run(smoke("data.pairs_per_step=9", "data.questions_per_step=8", "trainer.accumulate_grad_batches=2"))
    build_training_run(smoke("data.questions_per_step=2", "data.in_batch_negatives=99"))
    build_training_run(smoke("data.pairs_per_step=9", "trainer.gradient_cache=4"))


def test_everything_wrong_is_named_at_once_each_by_its_path_and_once():
    overrides = {
        "+sede=1": "sede",
        "+model.hiden_size=8": "model.hiden_size",
        "seed=abc": "seed",
        "source.dev_size=0": "source",
        "data.pool_depth=50": "data.pool_depth",
        "optimizer.lr=-1": "optimizer",
        "schedule.warmup_ratio=2": "schedule",
        "loss._target_=crossrank.losses.none": "loss._target_",
        "+evaluators.held_out.miner.k3=1": "evaluators.held_out.miner.k3",
        "+callbacks.throughput.evry=1": "callbacks.throughput.evry",
    }
    assert sorted(problem.split(": ")[0] for problem in problems_of(*overrides)) == sorted(overrides.values())


def test_the_message_counts_and_lists():
    with pytest.raises(ConfigError) as error:
        build_training_run(smoke("+sede=1", "optimizer.lr=-1"))
    first, *others = str(error.value).splitlines()
    assert first == "2 problems in the config:"
    assert all(line.startswith("  - ") for line in others)
    assert len(others) == 2


def test_what_hydra_adds_is_not_mistaken_for_a_typo():
    """`+key=value` of a key that the constructor has, `_partial_`, and the config of a multirun job are all fine."""
    cfg = smoke("+callbacks.throughput.rows_seen=1", "+evaluators.held_out.miner.k1=1.2")
    with pytest.raises(ConfigError, match="rows_seen"):
        validate(cfg, RunConfig)
    run = build_training_run(smoke("+evaluators.held_out.miner.k1=1.2", "sweep=lr"))
    assert run.evaluation.evaluators["held_out"].miner.k1 == 1.2
    assert "hydra" not in smoke()


def test_some_parts_are_built_without_what_only_training_needs(monkeypatch):
    """A run that was made on a GPU is described on a machine that has none; the whole config is still checked."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    names = ("source", "miner", "policy", "data", "model")
    parts = build_parts(smoke("trainer=gpu"), names)
    assert tuple(parts) == names
    assert parts["policy"].negatives == 5
    with pytest.raises(ConfigError) as caught:
        build_parts(smoke("trainer=gpu", "+optimizer.lrr=1", "policy.negatives=0"), names)
    assert len(caught.value.problems) == 2
    cfg = smoke()
    cfg.miner = cfg.policy
    with pytest.raises(ConfigError, match="miner: a Policy is no Miner"):
        build_parts(cfg, names)
