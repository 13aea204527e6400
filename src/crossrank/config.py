"""The gate: refuse a bad config before any compute is spent, and name everything that is wrong with it.

Rules across components are one function each, in `RULES`; the keys at the root of each program stand in `schema`.
"""

import difflib
import importlib.util
import json
import logging
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.data.cache import replace_text
from crossrank.data.miners.none import NoMiner
from crossrank.data.teacher import Teacher
from crossrank.errors import ConfigError
from crossrank.evaluation import Evaluator, metric_names, produced_keys
from crossrank.gate import Node, build, examine, leaves, wrong_kind
from crossrank.identity import differences, identity
from crossrank.models.lora import Adapter
from crossrank.redaction import redact, secrets_in
from crossrank.resume import ORIGIN
from crossrank.run import TrainingRun
from crossrank.schema import AuditConfig, AuditSettings, CompareConfig, EvaluateConfig, RunConfig

log = logging.getLogger(__name__)

COMPONENTS = ("source", "miner", "policy", "data", "model", "loss", "optimizer", "schedule", "trainer")
OPTIONAL = {"teacher": Teacher, "adapter": Adapter}
EXTRAS = {"TensorBoardLogger": "tensorboard", "TrackioLogger": "trackio"}  # a logger: the package and extra it needs


def build_training_run(cfg: DictConfig, resumed: bool = False, schema: type[RunConfig] = RunConfig) -> TrainingRun:
    """Check a composed config and build its components; nothing is loaded, fetched or computed.

    Raises:
        ConfigError: lists every unknown key, missing or badly typed value, value out of range and impossible
            combination.
    """
    raw, tree, problems = examine(cfg, schema)
    problems += secrets_in(leaves(tree))
    parts: dict[str, Any] = {name: build(name, tree.get(name), raw, problems) for name in COMPONENTS}
    parts |= {name: build(name, tree[name], raw, problems) for name in OPTIONAL if tree.get(name) is not None}
    for group in ("callbacks", "logger"):
        nodes = tree[group] if isinstance(tree.get(group), Mapping) else {}
        parts[group] = {key: build(f"{group}.{key}", node, raw, problems) for key, node in nodes.items()}
    problems += (wrong := list(_wrong_kinds(parts)))
    for rule, needed in () if wrong else RULES.items():
        if all(parts[name] is not None for name in needed):
            problems += rule(parts)
    if problems:
        raise ConfigError(problems)
    parts |= {"loggers": parts.pop("logger"), "run_dir": Path(tree["run_dir"]), "cache_dir": Path(tree["cache_dir"])}
    config = OmegaConf.to_yaml(cfg, resolve=True)
    return TrainingRun(
        name=tree["name"],
        seed=tree["seed"],
        calibration=tree["calibration"],
        resumed=resumed,
        resume_anyway=tree["resume_anyway"],
        config=config,
        **parts,
    )


def build_parts(cfg: DictConfig, names: Sequence[str]) -> dict[str, Any]:
    """Check a run's config and build some of its components, such as those that make its data.

    Raises:
        ConfigError: as `build_training_run`, of the whole config's shape and of the components that are built.
    """
    raw, tree, problems = examine(cfg, RunConfig)
    parts = {name: build(name, tree[name], raw, problems) for name in names if tree.get(name) is not None}
    problems += _wrong_kinds(parts)
    if problems:
        raise ConfigError(problems)
    return parts


def build_audit(cfg: DictConfig) -> tuple[TrainingRun, AuditSettings]:
    """Check the config of an audit and build what it looks at.

    Raises:
        ConfigError: as `build_training_run`.
    """
    run = build_training_run(cfg, schema=AuditConfig)
    return run, AuditSettings.model_validate(OmegaConf.to_container(cfg.audit, resolve=True))


def write_origin(cfg: DictConfig, overrides: Sequence[str], run_dir: Path) -> None:
    """Write `<run_dir>/origin.json`: the words of the command, the experiment they start from, what they change in it.

    Differences are [the experiment's value, the run's] by key, null where the experiment cannot be composed by itself.
    """
    words = [redact(word) for word in overrides]
    base = next((word for word in overrides if word.startswith("experiment=")), None)
    try:
        begun = identity(compose("train", [base] if base else []))
        changed: dict[str, Any] | None = {key: pair for key, *pair in differences(begun, identity(cfg), how=())}
    except (HydraException, OmegaConfBaseException) as error:
        log.debug("no differences to %s: %s", base, error)
        changed = None
    facts = {"overrides": words, "base": base or "the default config", "differences": changed}
    run_dir.mkdir(parents=True, exist_ok=True)
    replace_text(run_dir / ORIGIN, json.dumps(facts, indent=2, default=str) + "\n")


Given = TypeVar("Given", EvaluateConfig, CompareConfig)


def build_evaluation(cfg: DictConfig, schema: type[Given]) -> tuple[Given, dict[str, Evaluator]]:
    """Check the config of an evaluation outside training and build its evaluators.

    Raises:
        ConfigError: lists everything that is wrong, as `build_training_run` does.
    """
    raw, tree, problems = examine(cfg, schema)
    problems += secrets_in(leaves(tree))
    nodes = tree["evaluators"] if isinstance(tree.get("evaluators"), Mapping) else {}
    evaluators = {key: build(f"evaluators.{key}", node, raw, problems) for key, node in nodes.items()}
    for key, evaluator in evaluators.items():
        problems += (wrong := list(wrong_kind(f"evaluators.{key}", evaluator, Evaluator)))
        produced = metric_names(evaluator.at_k, evaluator.protocol) if evaluator is not None and not wrong else ()
        if produced and tree["main_metric"] not in produced:
            problems.append(f"main_metric: evaluators.{key} has no {tree['main_metric']!r} but {', '.join(produced)}")
    if problems:
        raise ConfigError(problems)
    return schema.model_validate(tree), evaluators


def _wrong_kinds(parts: dict[str, Any]) -> Iterator[str]:
    """Name every part that can be built and is no such part as it stands for."""
    kinds = typing.get_type_hints(TrainingRun) | {"optimizer": None}
    for name in COMPONENTS:
        yield from wrong_kind(name, parts.get(name), kinds[name])
    for name, kind in OPTIONAL.items():
        yield from wrong_kind(name, parts.get(name), kind)
    for key, callback in parts.get("callbacks", {}).items():
        yield from wrong_kind(f"callbacks.{key}", callback, pl.Callback)
        for name, evaluator in callback.evaluators.items() if isinstance(callback, PeriodicEvaluation) else ():
            yield from wrong_kind(f"callbacks.{key}.evaluators.{name}", evaluator, Evaluator)
    for key, logger in parts.get("logger", {}).items():
        yield from wrong_kind(f"logger.{key}", logger, None)


def _monitor_is_produced(parts: Node) -> Iterator[str]:
    for name, callback in parts["callbacks"].items():
        keys = produced_keys(callback.evaluators) if isinstance(callback, PeriodicEvaluation) else []
        if keys and callback.monitor not in keys:
            close = difflib.get_close_matches(callback.monitor, keys, n=1, cutoff=0.3)
            hint = f"did you mean {close[0]!r}?" if close else f"they produce: {', '.join(keys)}"
            yield f"callbacks.{name}.monitor: no evaluator produces {callback.monitor!r}; {hint}"


def _pool_is_deep_enough(parts: Node) -> Iterator[str]:
    depth, wanted = parts["data"].pool_depth, parts["policy"].rank_max
    if depth is not None and depth < wanted:
        yield f"data.pool_depth: {depth} candidates a question; raise it to policy.rank_max = {wanted}, or lower that"


def _steps_divide_into_micro_batches(parts: Node) -> Iterator[str]:
    data, trainer = parts["data"], parts["trainer"]
    if data.per_step % (trainer.accumulate_grad_batches * trainer.processes):
        named = f"trainer.accumulate_grad_batches = {trainer.accumulate_grad_batches}"
        more = f" times {trainer.processes} processes" if trainer.processes > 1 else ""
        yield f"data.{data.unit}_per_step: {data.per_step} is not a multiple of {named}{more}"


def _a_listwise_loss_sees_whole_lists(parts: Node) -> Iterator[str]:
    if getattr(parts["loss"], "listwise", False) and parts["data"].questions_per_step is None:
        yield (
            f"data.questions_per_step: null spreads a question over many batches and {type(parts['loss']).__name__} "
            "compares its documents; set it to 8, say"
        )


def _optimizer_accepts_its_values(parts: Node) -> Iterator[str]:
    try:
        parts["optimizer"]([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        yield f"optimizer: {error}"


def _loggers_are_installed(parts: Node) -> Iterator[str]:
    for name, logger in parts["logger"].items():
        package = EXTRAS.get(getattr(getattr(logger, "func", logger), "__name__", ""))
        if package and importlib.util.find_spec(package) is None:
            yield f"logger.{name}: {package} is not installed; pip install -e '.[{package}]', or leave it out"


def _teacher_has_something_to_judge(parts: Node) -> Iterator[str]:
    if parts.get("teacher") is not None and isinstance(parts["miner"], NoMiner):
        yield "teacher: it judges what a miner finds, and miner=none finds nothing; leave one of them out"


def _adapters_have_a_place(parts: Node) -> Iterator[str]:
    if parts.get("adapter") is not None and getattr(parts["model"], "attention", None) == "fused":
        yield "model.attention: the fused forward has no place for adapters; set it to auto or packed, or adapter=null"


def _averages_can_be_made_and_judged(parts: Node) -> Iterator[str]:
    averages = [name for name, callback in parts["callbacks"].items() if isinstance(callback, Averaging)]
    evaluated = any(isinstance(callback, PeriodicEvaluation) for callback in parts["callbacks"].values())
    for name in averages:
        if not re.fullmatch(r"\w[\w.@+-]*", name):
            yield f"callbacks.{name}: a folder is called after an average, so its name is a word without slashes"
        if not evaluated:
            yield f"callbacks.{name}: an average is judged by evaluating it, and no callback evaluates; add evaluation"
        if parts["trainer"].strategy == "fsdp":
            yield f"callbacks.{name}: under fsdp no process has all weights to average; use trainer=ddp"


RULES: dict[Callable[[Node], Iterator[str]], tuple[str, ...]] = {  # a rule and the parts that it reads
    _monitor_is_produced: ("callbacks",),
    _pool_is_deep_enough: ("data", "policy"),
    _steps_divide_into_micro_batches: ("data", "trainer"),
    _a_listwise_loss_sees_whole_lists: ("data", "loss"),
    _optimizer_accepts_its_values: ("optimizer",),
    _teacher_has_something_to_judge: ("miner",),
    _loggers_are_installed: ("logger",),
    _adapters_have_a_place: ("model",),
    _averages_can_be_made_and_judged: ("callbacks", "trainer"),
}
