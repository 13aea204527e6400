"""The gate: refuse a bad config before any compute is spent, and name everything that is wrong with it.

The constructors are the schema. Each `_target_` node is checked against the signature and the types of what it names,
so a new component declares its fields once, in its `__init__`; ranges are checked by the constructor that owns the
value; rules across components are one function each, in `RULES`.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.errors import ConfigError, CrossrankError
from crossrank.evaluation import produced_keys
from crossrank.training.run import TrainingRun

Node = Mapping[str, Any]
MISSING = "???"


class RunConfig(BaseModel):
    """The keys at the root of conf/train.yaml; any other key there is a typo."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    seed: int
    run_dir: str
    cache_dir: str
    monitor: str
    source: dict[str, Any]
    miner: dict[str, Any]
    policy: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    trainer: dict[str, Any]
    evaluators: dict[str, dict[str, Any]]
    callbacks: dict[str, dict[str, Any]]
    logger: dict[str, dict[str, Any]]


class RerankConfig(BaseModel):
    """The keys of conf/rerank.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    query: str
    documents: str
    rerank_k: PositiveInt
    top_k: PositiveInt


COMPONENTS = ("source", "miner", "policy", "data", "model", "loss", "optimizer", "schedule", "trainer")
GROUPS = ("callbacks", "logger")


def build_training_run(cfg: DictConfig) -> TrainingRun:
    """Check a composed config and build its components; nothing is loaded, fetched or computed.

    Raises:
        ConfigError: lists every unknown key, missing or badly typed value, value out of range and impossible
            combination.
    """
    tree = _checked_tree(cfg)
    problems: list[str] = []
    parts = {name: _build(name, tree[name], problems) for name in COMPONENTS}
    groups = {group: {k: _build(f"{group}.{k}", v, problems) for k, v in tree[group].items()} for group in GROUPS}
    if problems:
        raise ConfigError(problems)
    problems += [problem for rule in RULES for problem in rule(tree, parts, groups["callbacks"])]
    if problems:
        raise ConfigError(problems)
    return TrainingRun(
        name=tree["name"], seed=tree["seed"], run_dir=Path(tree["run_dir"]), cache_dir=Path(tree["cache_dir"]),
        callbacks=groups["callbacks"], loggers=groups["logger"], **parts,
    )  # fmt: skip


def validate(cfg: DictConfig, schema: type[BaseModel] = RunConfig) -> None:
    """Check a config's keys, types and missing values against its components' constructors.

    Raises:
        ConfigError: lists every problem by its full path.
    """
    _checked_tree(cfg, schema)


def _checked_tree(cfg: DictConfig, schema: type[BaseModel] = RunConfig) -> dict[str, Any]:
    """Return the resolved config as plain containers, or raise everything that is wrong with its shape."""
    problems = [_missing(path) for path in sorted(OmegaConf.missing_keys(cfg))]
    try:
        tree: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([*problems, f"{error.full_key}: {str(error).splitlines()[0]}"]) from error
    raw = OmegaConf.to_container(cfg, resolve=False)
    for path, node in _components(raw, tree):
        problems += _check_component(path, node)
    try:
        schema.model_validate(tree)
    except ValidationError as error:
        for e in error.errors():
            path = ".".join(map(str, e["loc"]))
            unknown = e["type"] == "extra_forbidden"
            problems.append(_unknown_key(path, list(schema.model_fields)) if unknown else f"{path}: {e['msg']}")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return dict(tree)


def _components(raw: Any, tree: Any, path: str = "") -> Iterator[tuple[str, Node]]:
    """Walk the nodes with a `_target_`; what an interpolation points to is checked where it stands itself."""
    if isinstance(raw, Mapping) and isinstance(tree, Mapping):
        if "_target_" in tree:
            yield path, tree
        for key, child in raw.items():
            yield from _components(child, tree[key], f"{path}.{key}".lstrip("."))
    elif isinstance(raw, list) and isinstance(tree, list):
        for i, child in enumerate(raw):
            yield from _components(child, tree[i], f"{path}[{i}]")


def _check_component(path: str, node: Node) -> Iterator[str]:
    try:
        target = hydra.utils.get_object(node["_target_"])
    except Exception as error:  # hydra raises several kinds, all of which mean that there is no such thing
        yield f"{path}._target_: {str(error).splitlines()[0]}"
        return
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in given.items():
        if key not in parameters and not open_ended:
            yield _unknown_key(f"{path}.{key}", list(parameters))
        elif key in hints and value != MISSING and not isinstance(value, Mapping):
            yield from _check_value(f"{path}.{key}", value, hints[key])
    if not node.get("_partial_"):  # a partial gets the rest of its arguments when it is called
        required = [
            n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        yield from (_missing(f"{path}.{name}") for name in required if name not in given)


def _check_value(path: str, value: Any, hint: Any) -> Iterator[str]:
    try:
        adapter = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return  # not a plain type: the constructor has to judge it
    try:
        adapter.validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        yield f"{path}: {value!r}: {error.errors()[0]['msg']}"


def _missing(path: str) -> str:
    return f"{path}: required and missing; give it as {path}=..."


def _unknown_key(path: str, known: list[str]) -> str:
    close = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    return f"{path}: no such key; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _build(path: str, node: Node, problems: list[str]) -> Any:
    """Construct one component; a value that its constructor refuses becomes a problem under its path."""
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        problems.append(f"{path}: {cause}")
    except (CrossrankError, ValueError, TypeError) as error:
        problems.append(f"{path}: {error}")
    return None


Rule = Callable[[Node, Mapping[str, Any], Mapping[str, Any]], Iterator[str]]


def _monitor_is_produced(tree: Node, parts: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[str]:
    for name, callback in callbacks.items():
        if isinstance(callback, PeriodicEvaluation):
            keys = produced_keys(callback.evaluators)
            if callback.monitor not in keys:
                close = difflib.get_close_matches(callback.monitor, keys, n=1, cutoff=0.3)
                hint = f"did you mean {close[0]!r}?" if close else f"they produce: {', '.join(keys)}"
                yield f"callbacks.{name}.monitor: no evaluator produces {callback.monitor!r}; {hint}"


def _pool_is_deep_enough(tree: Node, parts: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[str]:
    depth, policy = parts["data"].pool_depth, parts["policy"]
    if depth is not None and depth < policy.rank_max:
        yield (
            f"data.pool_depth: {depth} candidates a question, and the policy looks at {policy.rank_max}; raise it or "
            "lower policy.rank_max"
        )


def _steps_divide_into_micro_batches(
    tree: Node, parts: Mapping[str, Any], callbacks: Mapping[str, Any]
) -> Iterator[str]:
    pairs, accumulate = parts["data"].pairs_per_step, parts["trainer"].accumulate_grad_batches
    if pairs % accumulate:
        parts_wanted = f"trainer.accumulate_grad_batches = {accumulate} parts"
        yield f"data.pairs_per_step: {pairs} pairs cannot be split into {parts_wanted}"


def _optimizer_accepts_its_values(tree: Node, parts: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[str]:
    try:
        parts["optimizer"]([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        yield f"optimizer: {error}"


RULES: tuple[Rule, ...] = (
    _monitor_is_produced,
    _pool_is_deep_enough,
    _steps_divide_into_micro_batches,
    _optimizer_accepts_its_values,
)
