"""Every YAML under conf/ composes and passes the gate; whoever adds one need not touch this file."""

import re
import typing
from collections.abc import Mapping
from functools import cache

import hydra.utils
import pytest
import torch
from conftest import CONF, ROOT, composed
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from crossrank.config import COMPONENTS, build_training_run
from crossrank.data.pairs import Source
from crossrank.evaluation import produced_keys
from crossrank.run import TrainingRun

FILES = sorted(file.relative_to(CONF) for file in CONF.rglob("*.yaml"))
ROOTS = [file.stem for file in FILES if len(file.parts) == 1]
CHOICES = [(file.parts[0], file.stem) for file in FILES if len(file.parts) == 2]
OF_HYDRA = [(file.parts[1], file.stem) for file in FILES if file.parts[0] == "hydra"]
SPECIAL = ("experiment", "sweep", "protocol")
COMPONENT_CHOICES = [(group, choice) for group, choice in CHOICES if group not in SPECIAL]
EXPERIMENTS = [choice for group, choice in CHOICES if group == "experiment"]
SWEEPS = [choice for group, choice in CHOICES if group == "sweep"]


def with_hydra(*overrides):
    """Compose with the settings of Hydra itself."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


def alone(group: str, choice: str) -> DictConfig:
    """Return one file of a group, with what it takes over from others of it."""
    return composed(root=f"{group}/{choice}")


def keep(node: DictConfig, wanted: DictConfig) -> None:
    """Take out what the experiment says about another choice of the same group."""
    known = set(wanted)  # `key in wanted` is false of a missing value
    for key in list(node):
        if key not in known:
            del node[key]
        elif isinstance(wanted._get_node(key), DictConfig):
            keep(node._get_node(key), wanted._get_node(key))


def fill(cfg: DictConfig, path: str) -> None:
    """Put something of the right type where a value is required."""
    parent, _, key = path.rpartition(".")
    target = hydra.utils.get_object(OmegaConf.select(cfg, parent)._target_)
    hint = typing.get_type_hints(target.__init__)[key]
    kind = typing.get_origin(hint)
    if kind is Mapping:
        of_name = {Source: OmegaConf.load(CONF / "source" / "gooaq.yaml"), float: 1.0}
        OmegaConf.update(cfg, path, {"given": of_name[typing.get_args(hint)[1]]})
    else:
        OmegaConf.update(cfg, path, ["given"] if kind in (list, tuple) else "given")


def smoke_with(group: str, choice: str) -> DictConfig:
    """Compose experiment=smoke with one choice of one group and nothing else changed.

    A callback stands beside the evaluation, which some need.
    """
    choices = dict.fromkeys(["evaluation", choice] if group == "callbacks" else [choice])
    cfg = composed("experiment=smoke", "run_dir=nowhere", f"{group}=[{','.join(choices)}]")
    OmegaConf.set_struct(cfg, False)
    wanted = OmegaConf.merge({}, *(alone(group, name)[group] for name in choices))
    keep(cfg[group], wanted)
    for path in OmegaConf.missing_keys(cfg):
        if path.startswith(f"{group}."):
            fill(cfg, path)
    if group == "evaluators":
        evaluators = hydra.utils.instantiate(OmegaConf.to_container(cfg, resolve=True)["evaluators"], _convert_="all")
        cfg.monitor = produced_keys(evaluators)[0]
    return cfg


@cache
def run_with(group: str, choice: str) -> TrainingRun:
    return build_training_run(smoke_with(group, choice))


@pytest.fixture(autouse=True)
def _a_gpu(monkeypatch):
    """trainer=gpu is refused where there is none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_files_lie_at_one_level_and_every_group_is_known_to_the_root():
    assert all(len(file.parts) == 3 if file.parts[0] == "hydra" else len(file.parts) <= 2 for file in FILES)
    defaults = OmegaConf.load(CONF / "train.yaml").defaults
    known = {key for entry in defaults if entry != "_self_" for key in entry if not key.startswith("override ")}
    assert {group for group, _ in CHOICES} == known
    assert set(COMPONENTS) <= known


@pytest.mark.parametrize(("group", "choice"), COMPONENT_CHOICES)
def test_choice_passes_the_gate_and_pins_what_it_fetches_from_the_hub(group, choice):
    """A branch or a tag may be moved; only a commit cannot."""
    run = run_with(group, choice)
    fetched = [asset for asset in run.assets() if not asset.path.startswith("pypi:") and "given" not in asset.path]
    assert [asset for asset in fetched if not re.fullmatch(r"[0-9a-f]{40}", asset.revision or "")] == []
    if group in COMPONENTS:
        node = alone(group, choice)[group]
        assert isinstance(getattr(run, group), hydra.utils.get_object(node._target_)) or node.get("_partial_")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_passes_the_gate_and_is_called_after_its_file(name):
    run = build_training_run(composed(f"experiment={name}", "run_dir=nowhere"))
    assert run.name == name


@pytest.mark.parametrize("protocol", [choice for group, choice in CHOICES if group == "protocol"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_one_switch_chooses_the_protocol_of_evaluators_and_monitor(name, protocol):
    run = build_training_run(composed(f"experiment={name}", f"protocol={protocol}", "run_dir=nowhere"))
    assert {evaluator.protocol for evaluator in run.evaluation.evaluators.values()} == {protocol}
    assert run.evaluation.monitor in produced_keys(run.evaluation.evaluators)
    assert ("trec_" in run.evaluation.monitor) == (protocol == "trec")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_opens_with_its_claim_what_to_expect_the_cost_and_the_command(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    comment = [line for line in lines[: lines.index("defaults:")] if line.startswith("#")]
    assert comment[1].startswith("# Claim: ")
    parts = [re.match(r"# (Claim|Expected|Cost|Command)\b", line) for line in comment]
    assert [part[1] for part in parts if part] == ["Claim", "Expected", "Cost", "Command"]
    command = next(line for line in comment if line.startswith("# Command: "))
    assert re.search(rf"python -m src\.train .*experiment={name}\b", command)


def choices_of(key: str, sweep: str) -> list[str]:
    """Return the values of a key in a sweep, of an interval its ends."""
    override = OverridesParser.create().parse_override(f"{key}={sweep}")
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(override.sweep_string_iterator())


@pytest.mark.parametrize("name", SWEEPS)
def test_each_job_of_a_sweep_passes_the_gate(name):
    assert f"sweep={name}" in (CONF / "sweep" / f"{name}.yaml").read_text(encoding="utf-8")
    cfg = with_hydra("experiment=smoke", f"sweep={name}")
    for key, values in cfg.hydra.sweeper.params.items():
        jobs = choices_of(key, str(values))
        assert len(jobs) > 1
        for value in jobs:
            job = composed("experiment=smoke", "run_dir=nowhere", f"sweep={name}", f"{key}={value}")
            build_training_run(job)
            if (key, value) in CHOICES:
                assert set(alone(key, value)[key].items()) <= set(job[key].items()), f"{value} is not what is composed"
            else:
                assert str(OmegaConf.select(job, key)) in (value, str(float(value)))


@pytest.mark.parametrize(("group", "choice"), OF_HYDRA)
def test_choice_for_hydra_composes_with_what_it_is_made_of(group, choice):
    cfg = with_hydra("experiment=smoke", f"hydra/{group}={choice}")
    parts = cfg.hydra[group].get("handlers", {"itself": cfg.hydra[group]}).values()
    assert all(hydra.utils.get_class(part.get("class") or part._target_) for part in parts)
    for key in OmegaConf.load(CONF / "hydra" / group / f"{choice}.yaml").keys() - {"defaults"}:
        assert key in cfg.hydra[group]


def test_slurm_gives_each_job_what_the_command_asks_for():
    asked = ["hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=600"]
    cfg = with_hydra("experiment=smoke", "hydra/launcher=slurm", *asked)
    launcher = hydra.utils.instantiate(cfg.hydra.launcher)
    assert type(launcher).__name__ == "SlurmLauncher"
    wanted = {"partition": "gpu", "timeout_min": 600, "gpus_per_node": 1, "array_parallelism": 16}
    assert {key: launcher.params[key] for key in wanted} == wanted


@pytest.mark.parametrize("root", ROOTS)
def test_root_has_a_program_and_takes_its_required_values_from_the_command_line(root):
    """A required value that is called like a group of conf/ could not be given: Hydra would look for a choice."""
    assert (ROOT / "src" / f"{root}.py").is_file()
    cfg = OmegaConf.load(CONF / f"{root}.yaml")
    required = [key for key in cfg if OmegaConf.is_missing(cfg, key)]
    given = composed(*[f"{path}=/some/where" for path in required], root=root)
    assert all(OmegaConf.select(given, path) == "/some/where" for path in required)


@pytest.mark.parametrize("root", ROOTS)
def test_root_says_how_it_is_run(root):
    assert f"python -m src.{root} " in (CONF / f"{root}.yaml").read_text(encoding="utf-8").splitlines()[0]


def test_the_default_config_is_the_recipe():
    """Without an experiment the same components are chosen."""
    plain = OmegaConf.to_container(composed("run_dir=nowhere"), resolve=True)
    recipe = OmegaConf.to_container(composed("experiment=gooaq_bce", "run_dir=nowhere"), resolve=True)
    for name in ("source", "miner", "policy", "model", "loss", "optimizer", "schedule", "evaluators", "monitor"):
        assert plain[name] == recipe[name]


RECIPE = {
    "name": "gooaq_bce",
    "seed": 12,
    "monitor": "eval/gooaq_dev/gooaq-dev/ndcg@10",
    "source.path": "sentence-transformers/gooaq",
    "source.limit": 100_000,
    "source.dev_size": 1000,
    "source.seed": 12,
    "miner.path": "sentence-transformers/static-retrieval-mrl-en-v1",
    "policy.negatives": 5,
    "policy.absolute_margin": 0.0,
    "policy.rank_min": 0,
    "policy.rank_max": 100,
    "data.pairs_per_step": 16,
    "data.epochs": 1.0,
    "data.max_steps": None,
    "data.workers": 4,
    "model.path": "answerdotai/ModernBERT-base",
    "loss._target_": "crossrank.losses.bce.WeightedBCE",
    "loss.pos_weight": 5,
    "optimizer._target_": "torch.optim.AdamW",
    "optimizer.lr": 2e-5,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "schedule._target_": "crossrank.training.optim.LinearWarmup",
    "schedule.warmup_ratio": 0.1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": 1.0,
    "evaluators.gooaq_dev.name": "gooaq-dev",
    "evaluators.gooaq_dev.depth": 30,
    "evaluators.gooaq_dev.at_k": 10,
    "evaluators.gooaq_dev.always_rerank_positives": False,
    "evaluators.nanobeir.path": "sentence-transformers/NanoBEIR-en",
    "evaluators.nanobeir.names": ["msmarco", "nfcorpus", "nq"],
    "evaluators.nanobeir.rerank_k": 100,
    "evaluators.nanobeir.at_k": 10,
    "evaluators.nanobeir.always_rerank_positives": True,
    "callbacks.evaluation.every_n_steps": 4000,
    "callbacks.checkpoint.every_n_steps": 4000,
    "callbacks.checkpoint.keep_last": 2,
    "callbacks.throughput.every_n_steps": 1000,
}


def test_gooaq_bce_is_the_published_recipe():
    cfg = composed("experiment=gooaq_bce", "run_dir=nowhere")
    found = {path: OmegaConf.select(cfg, path, default="absent") for path in RECIPE}
    assert found == RECIPE
    assert set(cfg.evaluators) == {"gooaq_dev", "nanobeir"}
    for component in ("source", "miner"):
        raw = OmegaConf.to_container(cfg, resolve=False)
        assert raw["evaluators"]["gooaq_dev"][component] == f"${{{component}}}"  # the dev questions of the same source


def test_gooaq_bce_pins_everything_that_it_fetches():
    run = build_training_run(composed("experiment=gooaq_bce", "run_dir=nowhere"))
    assets = run.assets()
    assert {(asset.kind, asset.path) for asset in assets} == {
        ("dataset", "sentence-transformers/gooaq"),
        ("model", "sentence-transformers/static-retrieval-mrl-en-v1"),
        ("model", "answerdotai/ModernBERT-base"),
        ("dataset", "sentence-transformers/NanoBEIR-en"),
    }
    assert all(re.fullmatch(r"[0-9a-f]{40}", asset.revision or "") for asset in assets)


def test_gooaq_bce_runs_on_local_files_as_its_comment_says():
    cfg = composed(
        "experiment=gooaq_bce", "run_dir=nowhere", "source=pairs", "source.path=pairs.jsonl", "evaluators=collection",
        "evaluators.collection.paths=[some/nano-nq]", "monitor=eval/collection/nano-nq/ndcg@10", "miner=bm25",
        "model.path=/some/modernbert", "model.revision=null",
    )  # fmt: skip
    assert [asset.path for asset in build_training_run(cfg).assets()] == ["/some/modernbert"]
