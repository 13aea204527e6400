"""The chapters of a run's page on how it came about: config, health, throughput, lineage, environment."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from crossrank.analysis.run_view import RunView
from crossrank.pages import plots
from crossrank.pages.page_parts import Cell, Chapter, Code, Fold, Grid, Part, Plot, Text

HEALTH: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {  # title: lines, key by name; caption; y axis
    "Mean scores in training": (
        {"positives": "health/positive_score", "negatives": "health/negative_score"},
        "Logits of the last training batches; they should part.",
        {},
    ),
    "Pair accuracy": (
        {"pair accuracy": "health/pair_accuracy"},
        "The share of (positive, negative) pairs of a batch in the right order; 0.5 is chance.",
        {"range": [0, 1.03]},
    ),
    "Loss by rank of the negative": (
        {"positives": "health/loss_of_rank_0", "1st": "health/loss_of_rank_1", "2nd": "health/loss_of_rank_2",
         "3rd to 5th": "health/loss_of_rank_3_to_5", "from the 6th": "health/loss_of_rank_from_6",
         "of other questions": "health/loss_of_other_questions"},
        "Binary cross-entropy without weights, by the place of the negative among its question's.",
        {"rangemode": "tozero"},
    ),
    "Shares to keep an eye on": (
        {"gradient of positives": "health/gradient_share_of_positives", "saturated": "health/saturated_share",
         "wrong and sure": "health/wrong_and_sure_share"},
        "Saturated: beyond ±12, where the sigmoid is flat; wrong and sure: those on the wrong side.",
        {"range": [-0.03, 1.03]},
    ),
}  # fmt: skip
RATES = {  # name: key, how it is written, and whether the last value stands for the whole run
    "pairs a second": ("train/pairs_per_second", "{:,.1f}", False),
    "tokens a second": ("train/tokens_per_second", "{:,.0f}", False),
    "useful TFLOP/s": ("train/tflops", "{:.3f}", False),
    "waiting for data": ("train/data_wait_share", "{:.1%}", False),
    "padding": ("train/padding_share", "{:.1%}", False),
    "evaluating, of all time": ("train/evaluation_share", "{:.1%}", True),
}
WARNING = "health, step "
PARTS = ("code", "machine", "packages")
MOST_CHARACTERS = 100_000  # of a diff


def config(view: RunView) -> Chapter:
    """Return what was asked for, and what of it differs from the base experiment."""
    parts: list[Part] = []
    command = view.provenance.get("command") or []
    if command:
        program = str(command[0]).removesuffix(".py")
        parts.append(Code(" ".join([f"python -m src.{program}", *(shlex.quote(str(word)) for word in command[1:])])))
    said = view.provenance.get("config")
    if isinstance(said, dict):
        base = str(said.get("base") or "the defaults")
        known = isinstance(said.get("differences"), dict)
        rows: list[list[str | Cell]] = [
            [path, _shown(was), _shown(now)] for path, (was, now) in _pairs(said.get("differences"))
        ]
        title = f"Differences from {base}"
        parts.append(
            Grid(["key", "base", "this run"], rows, title)
            if rows
            else Text(f"No difference from {base}." if known else f"What differs from {base} is not known.")
        )
    else:
        parts.append(Text("The difference from the base experiment was not recorded.", "note"))
    if view.config:
        parts.append(Fold("The whole config", [Code(OmegaConf.to_yaml(OmegaConf.create(view.config)).rstrip())]))
    else:
        parts.append(Text("There is no config.yaml.", "note"))
    return Chapter("Config", parts)


def _pairs(differences: object) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for path, values in differences.items() if isinstance(differences, dict) else ():
        if isinstance(values, list) and len(values) == 2:
            yield str(path), (values[0], values[1])


def _shown(value: Any) -> Cell:
    """Return a value of a config as a cell that is read as a word, not as a number."""
    return Cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def health(view: RunView) -> Chapter:
    """Return what scores, losses and gradients looked like, and the warnings that were given."""
    parts: list[Part] = []
    warnings = list(dict.fromkeys(line.partition(WARNING)[2] for line in view.log if WARNING in line))
    parts += [Text(f"Step {line}", "warning") for line in warnings]
    for title, (keys, caption, axis) in HEALTH.items():
        if drawn := plots.curves(view, keys, "", yaxis=axis):
            parts.append(Plot(drawn, title, caption, height=280, half=True))
    if not parts:
        return Chapter("Health", [Text("No health was logged.", "note")])
    if not warnings:
        parts.insert(0, Text("No warning was given."))
    return Chapter("Health", parts)


def throughput(view: RunView) -> Chapter:
    """Return how fast training went."""
    rows = []
    for name, (key, form, last) in RATES.items():
        if key in view.keys and len(values := view.run.curve(key).dropna()):
            numbers = [values.iloc[-1]] if last else [values.median(), values.min(), values.max()]
            rows.append([name, *map(form.format, numbers), *["-"] * (3 - len(numbers))])
    if not rows:
        return Chapter("Throughput", [Text("No throughput was logged.", "note")])
    seconds = view.provenance.get("training_seconds")
    took = f"Training took {duration(seconds)}, evaluations included. " if isinstance(seconds, int | float) else ""
    note = f"{took}Rates and shares are of the steps between two points of the record; that of evaluations, of all."
    parts: list[Part] = [Grid(["", "median", "lowest", "highest"], rows, note=note)]
    if drawn := plots.curves(
        view, {"tokens": "train/tokens_per_second"}, "tokens a second", yaxis={"rangemode": "tozero"}
    ):
        parts.append(Plot(drawn, "Tokens a second", height=280, half=True))
    return Chapter("Throughput", parts)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for limit, unit, name in ((120, 1, "seconds"), (7200, 60, "minutes")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 3600:.1f} hours"


def lineage(view: RunView) -> Chapter:
    """Return what the training set and the files of the run are made of, by hash."""
    record = view.read("lineage.json")
    steps = record.get("steps")
    if not isinstance(steps, dict):
        return Chapter("Lineage", [Text("There is no lineage.json.", "note")])
    rows = [[Cell(name), Cell(str(step.get("id", ""))), Cell(_settings(step))] for name, step in steps.items()]
    parts: list[Part] = [
        Grid(["step", "id", "settings"], rows, note="An id depends on the settings and on all steps before.", wide=True)
    ]
    for title, key in (("Caches, by the hash of all their files", "caches"), ("Files that the run left", "files")):
        named = record.get(key)
        if isinstance(named, dict) and named:
            hashes = [[Cell(str(name)), Cell(str(found))] for name, found in named.items()]
            parts.append(Fold(title, [Grid(["name", "hash"], hashes)]))
    return Chapter("Lineage", parts)


def _settings(step: Mapping[str, Any]) -> str:
    described = step.get("description")
    words = described.items() if isinstance(described, dict) else ()
    return ", ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in words)


def environment(view: RunView) -> Chapter:
    """Return code, machine, packages, and the electricity where it was estimated."""
    facts = view.provenance
    if not facts:
        return Chapter("Environment", [Text("There is no provenance.json.", "note")])
    code, machine, packages = (part if isinstance(part := facts.get(name), dict) else {} for name in PARTS)
    changes = {True: "with uncommitted changes", False: "without changes"}.get(code.get("uncommitted_changes"), "")  # type: ignore[arg-type]
    rows = {
        "commit": " ".join(filter(None, [str(code.get("commit") or "not known"), changes])),
        "files unknown to git": ", ".join(map(str, code.get("untracked") or ())),
        "code": str(code.get("fingerprint", "")), "python": str(facts.get("python", "")), **_machine(machine),
        "precision": str(facts.get("precision", "")), "started": str(facts.get("started", "")),
        **_electricity(view.read("energy.json")),
    }  # fmt: skip
    for again in facts.get("resumed") or ():
        rows[f"resumed after step {again.get('after_step')}"] = str(again.get("at"))
    known = [[Cell(name), Cell(value)] for name, value in rows.items() if value]
    versions = [[Cell(str(name)), Cell(str(version))] for name, version in packages.items()]
    parts: list[Part] = [Grid(["", ""], known, wide=True), Grid(["package", "version"], versions, "Packages")]
    if installed := view.text("requirements.txt"):
        parts.append(Fold("All that was installed", [Code(installed.rstrip())]))
    if changed := view.text("uncommitted.diff"):
        parts.append(Fold("Uncommitted changes", [Code(_cut(changed))]))
    return Chapter("Environment", parts)


def _machine(machine: Mapping[str, Any]) -> dict[str, str]:
    if not machine:
        return {}
    gpus = [_gpu(gpu) if isinstance(gpu, dict) else str(gpu) for gpu in machine.get("gpus") or ()]
    memory, kind = machine.get("memory_gib"), machine.get("cpu")
    processors = f"{machine.get('cpus')}, of which torch used {machine.get('threads')}"
    return {
        "system": str(machine.get("system", "")), "CPUs": f"{kind}: {processors}" if kind else processors,
        "memory": f"{memory} GiB" if memory else "", "GPUs": ", ".join(gpus) or "none",
        "CUDA": str(machine.get("cuda") or ""),
    }  # fmt: skip


def _gpu(gpu: Mapping[str, Any]) -> str:
    return f"{gpu.get('name')} ({gpu.get('memory_gib')} GiB)"


def _electricity(energy: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(energy.get("all_kwh"), int | float):
        return {}
    mass = energy.get("co2_kg")
    emitted = f", {mass:.3g} kg of CO2 in {energy.get('country')}" if isinstance(mass, int | float) else ""
    by = energy.get("estimated_by")
    return {"electricity": f"about {energy['all_kwh']:.3g} kWh{emitted}, estimated by {by}"}


def _cut(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return text if more <= 0 else f"{text[:MOST_CHARACTERS]}\n… and {more:,} characters more"
