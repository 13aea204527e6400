"""The rules of the design that a reader relies on, read from the source."""

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

from conftest import ROOT
from omegaconf import OmegaConf

LIBRARY = ROOT / "src" / "crossrank"
MODULES = sorted(LIBRARY.rglob("*.py"))
PROGRAMS = sorted((ROOT / "src").glob("*.py"))
PLUGINS = sorted((ROOT / "src" / "hydra_plugins").glob("*.py"))
SOURCES = [*MODULES, *PROGRAMS, *PLUGINS]
NO_FRAMEWORK = ("losses", "models", "evaluation", "data", "inference")
FRAMEWORKS = {"lightning", "pytorch_lightning", "hydra", "wandb"}

LAYERS = {  # package: what of crossrank it may import besides itself
    "errors": set(),
    "process": set(),
    "quiet": set(),
    "redaction": set(),
    "identity": set(),
    "resume": {"errors", "identity"},
    "faults": {"errors", "redaction", "resume"},
    "hub": {"errors", "redaction"},
    "data": {"errors", "hub"},
    "losses": {"errors"},
    "models": {"errors", "hub", "data"},
    "evaluation": {"errors", "hub", "data"},
    "inference": {"errors", "hub", "data", "models", "evaluation"},
    "analysis": {"errors", "identity", "resume", "evaluation"},
    "audit": {"errors", "resume", "data", "evaluation", "analysis"},
    "callbacks": {
        "errors",
        "audit",
        "resume",
        "redaction",
        "hub",
        "data",
        "losses",
        "models",
        "evaluation",
        "inference",
        "training",
    },
    "training": {"errors", "identity", "resume", "redaction", "hub", "data", "losses", "models", "analysis"},
    "exports": {"errors", "data", "models", "inference"},
    "card": {"identity", "redaction", "hub", "data", "evaluation", "analysis", "audit", "callbacks"},
    "outcome": {"faults", "data", "models", "evaluation", "analysis", "callbacks", "card"},
    "pages": {"errors", "resume", "evaluation", "analysis"},
    "reports": {"errors", "data", "analysis", "pages"},
    "run": {
        "errors",
        "faults",
        "resume",
        "hub",
        "data",
        "losses",
        "models",
        "evaluation",
        "analysis",
        "callbacks",
        "training",
        "exports",
        "outcome",
        "reports",
    },
    "jobs": {
        "process",
        "errors",
        "faults",
        "redaction",
        "resume",
        "data",
        "analysis",
        "callbacks",
        "training",
        "config",
        "run",
    },
    "verify": {"errors", "resume", "data", "callbacks", "training", "config"},
    "gate": {"errors"},
    "schema": {"evaluation", "analysis", "gate"},
    "push": {"errors", "redaction", "data"},
    "reexport": {
        "errors",
        "resume",
        "hub",
        "data",
        "callbacks",
        "models",
        "inference",
        "analysis",
        "training",
        "exports",
        "card",
        "outcome",
        "config",
    },
    "config": {
        "errors",
        "identity",
        "resume",
        "redaction",
        "data",
        "evaluation",
        "models",
        "callbacks",
        "run",
        "gate",
        "schema",
    },
    "__init__": {"errors", "inference"},
}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def package(file: Path) -> str:
    return Path(file.relative_to(LIBRARY).parts[0]).stem


def only_filled(found: dict[str, set[str]]) -> dict[str, set[str]]:
    return {key: values for key, values in found.items() if values}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> set[str]:
    """Every module that is imported anywhere in a file, in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(file: Path) -> set[str]:
    return {module.partition(".")[0] for module in imports(file)}


def test_the_reader_of_imports_sees_them_everywhere(tmp_path):
    file = tmp_path / "m.py"
    file.write_text("import a.b\ndef f():\n    from c.d import e\nif TYPE_CHECKING:\n    import g as h\n")
    assert imports(file) == {"a.b", "c.d", "c.d.e", "g"}
    assert roots(file) == {"a", "c", "g"}


def test_imports_go_one_way():
    known = {package(file) for file in MODULES}
    wrong = {}
    for file in MODULES:
        inside = {module.split(".")[1] for module in imports(file) if module.startswith("crossrank.")}
        wrong[name(file)] = inside & known - LAYERS[package(file)] - {package(file)}
    assert only_filled(wrong) == {}


def test_every_package_has_its_layer():
    assert {package(file) for file in MODULES} == set(LAYERS)


def test_frameworks_stay_where_they_belong():
    wrong = {}
    for file in MODULES:
        allowed = set(FRAMEWORKS)
        if package(file) in NO_FRAMEWORK:
            allowed = {"lightning"} if name(file) == "src/crossrank/data/datamodule.py" else set()
        elif name(file) not in ("src/crossrank/config.py", "src/crossrank/gate.py"):
            allowed -= {"hydra"}
        wrong[name(file)] = roots(file) & FRAMEWORKS - allowed
    assert only_filled(wrong) == {}


def test_nothing_in_the_library_imports_the_programs():
    assert [name(file) for file in MODULES if "src" in roots(file)] == []


def test_files_and_programs_are_short():
    lines = {name(file): file.read_text(encoding="utf-8").count("\n") for file in SOURCES}
    assert {file: count for file, count in lines.items() if count > 250} == {}
    assert {name(file): lines[name(file)] for file in PROGRAMS if lines[name(file)] > 60} == {}


def test_functions_are_short():
    functions = [
        (node.end_lineno - node.lineno + 1, name(file), node.name)
        for file in SOURCES
        for node in ast.walk(tree(file))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert [function for function in functions if function[0] > 60] == []
    assert sorted(functions)[len(functions) // 2][0] < 12


def test_no_drawer_for_odds_and_ends():
    names = {part for file in SOURCES for part in file.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_the_library_does_not_print():
    calls = {file: {ast.unparse(n.func) for n in ast.walk(tree(file)) if isinstance(n, ast.Call)} for file in MODULES}
    assert [name(file) for file, called in calls.items() if "print" in called] == []


def test_constructors_take_no_open_ended_arguments():
    """Or else a typo in a config would go through."""
    constructors = [
        (f"{name(file)}, line {node.lineno}", node.args.kwarg)
        for file in MODULES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__new__")
    ]
    assert len(constructors) > 50
    assert [place for place, rest in constructors if rest is not None] == []


def targets(node) -> set[str]:
    if OmegaConf.is_dict(node):
        own = {node._get_node("_target_")._value()} if "_target_" in node else set()
        return own.union(*(targets(node._get_node(key)) for key in node))
    return set()


def test_whatever_a_config_builds_of_ours_takes_no_open_ended_arguments():
    found = set().union(*(targets(OmegaConf.load(file)) for file in (ROOT / "conf").rglob("*.yaml")))
    ours = sorted(target for target in found if target.startswith("crossrank."))
    assert len(ours) > 10
    for target in ours:
        module, _, attribute = target.rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters.values()
        assert all(p.kind is not p.VAR_KEYWORD for p in parameters), target


def test_every_module_has_a_test_file_that_mirrors_it():
    modules = [file.relative_to(LIBRARY) for file in MODULES if file.name != "__init__.py"]
    assert [str(m) for m in modules if not list((ROOT / "tests" / m.parent).glob(f"test_{m.stem}*.py"))] == []


def test_test_files_have_unique_names():
    """Without __init__.py pytest imports them all as top-level modules."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len({file.stem for file in files}) == len(files)
    assert not list((ROOT / "tests").rglob("__init__.py"))
