"""Checks a composed config against the constructors that it names, and builds the components.

The constructors are the schema: each `_target_` node is checked against the signature and the types of what it names;
ranges are checked by the constructor that owns the value. Only what PACKAGES and the user allow is imported or built.
"""

import difflib
import importlib.util
import inspect
import os
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from crossrank.errors import ConfigError

Node = Mapping[str, Any]

PACKAGES = (  # whose classes and functions a config may name; none of these runs code that a config spells out
    "crossrank.callbacks", "crossrank.data", "crossrank.evaluation", "crossrank.inference.teacher", "crossrank.losses",
    "crossrank.models", "crossrank.training", "torch.optim", "lightning.pytorch.callbacks", "lightning.pytorch.loggers",
)  # fmt: skip
ALLOW = "CROSSRANK_TARGETS"  # an environment variable, so that no config can allow itself anything


class Component(BaseModel):
    """A node that is built; the constructor which it names says what else stands in it."""

    model_config = ConfigDict(extra="allow")
    target: str = Field(alias="_target_")


def validate(cfg: DictConfig, schema: type[BaseModel]) -> None:
    """Check a config's keys, types and missing values against its components' constructors.

    Raises:
        ConfigError: lists every problem by its full path.
    """
    if problems := examine(cfg, schema)[2]:
        raise ConfigError(problems)


def examine(cfg: DictConfig, schema: type[BaseModel]) -> tuple[Node, Node, list[str]]:
    """Return the config as plain containers, as written and resolved, and everything that is wrong with its shape."""
    problems: list[str] = []
    try:
        problems += [_missing(path) for path in sorted(OmegaConf.missing_keys(cfg))]
        tree: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([*problems, f"{error.full_key}: {str(error).splitlines()[0]}"]) from error
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    problems += _refusals(raw, tree)
    for path, node in _components(raw, tree):
        if _refusal(node["_target_"]) is None:
            problems += _check_component(path, node)
    try:
        schema.model_validate(tree)
    except ValidationError as error:
        for e in error.errors():
            path = ".".join(map(str, e["loc"]))
            known = {"missing": _missing(path), "extra_forbidden": _unknown_key(path, list(schema.model_fields))}
            problems.append(known.get(e["type"], f"{path}: {e['msg']}"))
    return raw, tree, list(dict.fromkeys(problems))


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


def _refusals(raw: Any, tree: Any, path: str = "") -> Iterator[str]:
    """Name every target in a resolved tree that may not be built; nothing is imported that a config may not name.

    A resolver, too, can make a target, and Hydra resolves once more when it builds: so nothing may be left to resolve.
    """
    for where, node in _components(tree, tree, path):
        if wrong := _refusal(node["_target_"]):
            yield f"{_origin(raw, where)}._target_: {wrong}"
        for leaf, value in leaves(node, where):
            if isinstance(value, str) and "${" in value:
                yield f"{_origin(raw, leaf)}: holds '${{' once it is resolved, which a component cannot take"


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a config that is no container, with its full path."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from leaves(child, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for i, child in enumerate(tree):
            yield from leaves(child, f"{path}[{i}]")
    else:
        yield path, tree


def _refusal(name: Any) -> str | None:
    """Return why a target may not be built, if so."""
    allowed = (*PACKAGES, *filter(None, re.split(r"[,\s]+", os.environ.get(ALLOW, ""))))
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) or not _is_here(name):
        return f"nothing can be imported as {name!r}"
    refused = (
        f"{name!r} is no class or function of {', '.join(allowed)}; only these are built from a config, so move it "
        f"there or, if you trust it, allow its package by the environment variable {ALLOW}"
    )
    if not _within(name, allowed):
        return refused
    try:
        target = pkgutil.resolve_name(name)
    except Exception:  # importing may raise anything; whatever it is, there is no such thing
        return f"nothing can be imported as {name!r}"
    known = inspect.isclass(target) or inspect.isroutine(target)
    return None if known and _within(getattr(target, "__module__", None), allowed) else refused


def _is_here(name: str) -> bool:
    """Whether the first part of a name can be imported; looking for it runs nothing."""
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _within(module: str | None, packages: Sequence[str]) -> bool:
    return isinstance(module, str) and any(module == name or module.startswith(f"{name}.") for name in packages)


def _check_component(path: str, node: Node) -> Iterator[str]:
    target = pkgutil.resolve_name(node["_target_"])
    try:
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (TypeError, ValueError, NameError) as error:
        yield f"{path}._target_: {node['_target_']!r} does not say what it takes ({error})"
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in given.items():
        if key not in parameters and not open_ended:
            yield _unknown_key(f"{path}.{key}", list(parameters))
        elif key in hints and value != "???" and not _holds_components(value):
            yield from _check_value(f"{path}.{key}", value, hints[key])
    if not node.get("_partial_"):  # a partial gets the rest of its arguments when it is called
        for name, p in parameters.items():
            if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and name not in given:
                yield _missing(f"{path}.{name}")


def _holds_components(value: Any) -> bool:
    """Whether a value is a component or a mapping of components: each is checked under its own path."""
    return isinstance(value, Mapping) and ("_target_" in value or any(map(_holds_components, value.values())))


def _check_value(path: str, value: Any, hint: Any) -> Iterator[str]:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        yield f"{path}: {value!r}: {error.errors()[0]['msg']}"
    except PydanticSchemaGenerationError:
        return  # not a type that can be checked: the constructor has to judge it
    except SchemaError:  # a protocol, which only a component can fulfil
        if value is not None:
            yield f"{path}: {value!r}: a component is wanted here, a mapping with _target_"


def _missing(path: str) -> str:
    return f"{path}: required and missing; give it as {path}=..."


def _unknown_key(path: str, known: list[str]) -> str:
    close = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    return f"{path}: no such key; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def build(path: str, node: Any, raw: Node, problems: list[str]) -> Any:
    """Construct one component; a value that its constructor refuses becomes a problem under the value's path."""
    problems += [problem for problem in _refusals(raw, node, path) if problem not in problems]
    if _named(path, problems) or any(_refusals(raw, node, path)):  # it may be named where an interpolation points
        return None
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except MissingMandatoryValue:
        pass  # already named, where it is missing
    except Exception as error:  # InstantiationException, and what Hydra and OmegaConf raise of flags and of types
        inner = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
        where = _origin(raw, f"{path}.{inner[1]}" if inner else path)
        if not _named(where, problems):
            problems.append(f"{where}: {' '.join(str(error.__cause__ or error).split())}")
    return None


def wrong_kind(path: str, part: Any, kind: Any) -> Iterator[str]:
    """Say of a component that was built that it is not of a class, or lacks what a protocol promises.

    Without a `kind`, it has to be something that can be called.
    """
    if part is None:  # already named
        return
    if kind is None:
        if not callable(part):
            yield f"{path}: a {type(part).__name__} cannot be called; a partial is wanted here: _partial_: true"
    elif not getattr(kind, "_is_protocol", False):
        if not isinstance(part, kind):
            yield f"{path}: a {type(part).__name__} is no {kind.__name__}"
    else:
        promised = [name for name in vars(kind) if name == "__call__" or not name.startswith("_")]
        if lacking := [name for name in promised if not hasattr(type(part), name)]:
            yield f"{path}: a {type(part).__name__} is no {kind.__name__}, it lacks {', '.join(lacking)}"


def _named(path: str, problems: list[str]) -> bool:
    return any(problem.startswith((f"{path}:", f"{path}.", f"{path}[")) for problem in problems)


def _origin(raw: Any, path: str) -> str:
    """Follow interpolations such as `source: ${source}`, so that what is wrong is named where it stands."""
    keys, node = path.split("."), raw
    for i, key in enumerate(keys, start=1):
        node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, str) and (found := re.fullmatch(r"\$\{(\w[\w.]*)\}", node)):
            return _origin(raw, ".".join([found[1], *keys[i:]]))
    return path
