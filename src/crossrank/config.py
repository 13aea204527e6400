"""The gate: refuse a bad config before any compute is spent, and name everything that is wrong with it.

Here stand the keys at the root of each program's config; rules across components are one function each, in `RULES`.
"""

import difflib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field

from crossrank.analysis.report import CalibrationMethod
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.errors import ConfigError
from crossrank.evaluation import Evaluator, Protocols, metric_names, produced_keys
from crossrank.gate import Component, Node, build, examine, leaves, validate, wrong_kind
from crossrank.redaction import secrets_in
from crossrank.run import TrainingRun

__all__ = [
    "CompareConfig",
    "EvaluateConfig",
    "RerankConfig",
    "RunConfig",
    "build_evaluation",
    "build_training_run",
    "validate",
]


class RunConfig(BaseModel):
    """The keys at the root of conf/train.yaml; any other key there is a typo."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    seed: int
    run_dir: str
    cache_dir: str
    protocol: str
    main_metric: str
    monitor: str
    calibration: CalibrationMethod
    resume: str | None
    resume_anyway: bool
    source: Component
    miner: Component
    policy: Component
    data: Component
    model: Component
    loss: Component
    optimizer: Component
    schedule: Component
    trainer: Component
    evaluators: dict[str, Component]
    callbacks: dict[str, Component]
    logger: dict[str, Component]


class RerankConfig(BaseModel):
    """The keys of conf/rerank.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reranker: str
    query: str
    documents: str
    rerank_k: int = Field(ge=1)
    top_k: int = Field(ge=1)


class CompareConfig(BaseModel):
    """The keys of conf/compare.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    systems: list[str]
    names: list[str] | None
    metrics: list[str] | None
    pairs: Literal["all", "baseline"]
    qrels: str | None
    at_k: int = Field(ge=1)
    relevant_from: int = Field(ge=1)
    common_only: bool
    output: str | None
    confidence: float = Field(gt=0, lt=1)
    resamples: int = Field(ge=1)
    seed: int = Field(ge=0)
    cache_dir: str
    protocol: Protocols
    main_metric: str
    source: Component
    miner: Component
    evaluators: dict[str, Component]


class EvaluateConfig(BaseModel):
    """The keys of conf/evaluate.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    reranker: str
    max_length: int | None = Field(ge=8)
    tokens_per_batch: int | None = Field(ge=1)
    precision: Literal["fp32", "bf16"]
    budget: bool
    depths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    lengths: Annotated[list[Annotated[int, Field(ge=8)]], Field(min_length=1)] | None
    latency_queries: int = Field(ge=1)
    run_dir: str
    cache_dir: str
    protocol: Protocols
    main_metric: str
    source: Component
    miner: Component
    evaluators: dict[str, Component] = Field(min_length=1)


COMPONENTS = ("source", "miner", "policy", "data", "model", "loss", "optimizer", "schedule", "trainer")


def build_training_run(cfg: DictConfig, resumed: bool = False) -> TrainingRun:
    """Check a composed config and build its components; nothing is loaded, fetched or computed.

    Raises:
        ConfigError: lists every unknown key, missing or badly typed value, value out of range and impossible
            combination.
    """
    raw, tree, problems = examine(cfg, RunConfig)
    problems += secrets_in(leaves(tree))
    parts: dict[str, Any] = {name: build(name, tree.get(name), raw, problems) for name in COMPONENTS}
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
        yield from wrong_kind(name, parts[name], kinds[name])
    for key, callback in parts["callbacks"].items():
        yield from wrong_kind(f"callbacks.{key}", callback, pl.Callback)
        for name, evaluator in callback.evaluators.items() if isinstance(callback, PeriodicEvaluation) else ():
            yield from wrong_kind(f"callbacks.{key}.evaluators.{name}", evaluator, Evaluator)
    for key, logger in parts["logger"].items():
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
    pairs, trainer = parts["data"].pairs_per_step, parts["trainer"]
    if pairs % (trainer.accumulate_grad_batches * trainer.processes):
        named = f"trainer.accumulate_grad_batches = {trainer.accumulate_grad_batches}"
        more = f" times {trainer.processes} processes" if trainer.processes > 1 else ""
        yield f"data.pairs_per_step: {pairs} is not a multiple of {named}{more}"


def _optimizer_accepts_its_values(parts: Node) -> Iterator[str]:
    try:
        parts["optimizer"]([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        yield f"optimizer: {error}"


RULES: dict[Callable[[Node], Iterator[str]], tuple[str, ...]] = {  # a rule and the parts that it reads
    _monitor_is_produced: ("callbacks",),
    _pool_is_deep_enough: ("data", "policy"),
    _steps_divide_into_micro_batches: ("data", "trainer"),
    _optimizer_accepts_its_values: ("optimizer",),
}
