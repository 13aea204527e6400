"""The card's part on how the model came about: data, loss, settings, log, machine, lineage, versions."""

import importlib
import inspect
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from crossrank.analysis.run_view import RunView
from crossrank.analysis.sections import escaped, markdown_table
from crossrank.card.evaluated import parity
from crossrank.card.texts import cell, placeless
from crossrank.data.description import RECORD
from crossrank.data.lineage import FOLLOWS
from crossrank.identity import flat
from crossrank.redaction import redact

COMPONENTS = ("data", "model", "adapter", "loss", "optimizer", "schedule", "trainer", "policy", "miner")
NOT_SHOWN = ("_target_", "_partial_", "run_dir", "cache_dir")
MOST_ROWS = 100  # of the log that stand unfolded


def training_parts(view: RunView, known: Mapping[str, Any], export: Path) -> dict[str, Any]:
    """Return the parts of the template that the training fills."""
    data = view.read(RECORD)
    compared = parity(export)
    return {
        "data": data,
        "statistics": _statistics(data),
        "samples": _samples(data, int(known.get("samples", 3))),
        "negatives": _settings(view.config, ("source", "miner", "policy", "teacher")),
        "loss": _loss(view),
        "chosen": list(_chosen(view.config)),
        "settings": OmegaConf.to_yaml(OmegaConf.create(placeless(_trained_with(view.config)))).rstrip(),
        "log": training_log(view, data.get("steps_per_epoch")),
        "speed": list(_speed(view)),
        "command": _command(view),
        "commit": (view.provenance.get("code") or {}).get("commit"),
        "changed": (view.provenance.get("code") or {}).get("uncommitted_changes"),
        "parity": markdown_table(compared.header, [map(escaped, row) for row in compared.rows]) if compared else "",
        "lineage": list(_lineage(view)),
        "versions": {"python": view.provenance.get("python"), **(view.provenance.get("packages") or {})},
    }


def _statistics(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    columns = {**data["characters"], "label": data["label"]}
    lines = [[f"{key}", *(columns[name][key] for name in columns)] for key in ("min", "mean", "max")]
    named = [f"{name} (characters)" if name != "label" else name for name in columns]
    return markdown_table(["", *named], [[line[0], *(f"{value:,.2f}" for value in line[1:])] for line in lines])


def _samples(data: Mapping[str, Any], count: int) -> str:
    rows = data.get("samples", [])[:count] if data else []
    lines = [[cell(row["question"]), cell(row["document"]), f"{row['label']:g}"] for row in rows]
    return markdown_table(["question", "document", "label"], lines) if lines else ""


def _settings(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return each component and its settings as JSON."""
    found = {}
    for name in names:
        node = config.get(name)
        if isinstance(node, dict):
            kind = str(node.get("_target_", "")).rpartition(".")[2]
            own = {key: value for key, value in node.items() if key not in NOT_SHOWN and value is not None}
            found[name] = f"{kind} {json.dumps(placeless(own))}".replace("`", "'")  # it stands between two
    return found


def _loss(view: RunView) -> dict[str, str]:
    """Return the loss's name, its settings as JSON and, from its docstring, where it comes from."""
    node = view.config.get("loss")
    if not isinstance(node, dict):
        return {}
    own = {key: value for key, value in node.items() if key not in NOT_SHOWN}
    documented = inspect.getdoc(_target(node)) or ""
    sources = documented.partition("Source")[2].partition(":")[2]
    name = str(node.get("_target_", "")).rpartition(".")[2]
    return {"name": name, "settings": json.dumps(own, indent=2), "sources": " ".join(sources.split())}


def _target(node: Mapping[str, Any]) -> Any:
    """Return what a component is made by; None where that is not installed here."""
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _chosen(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that are not what the component's constructor takes by itself, and the lr."""
    for name in COMPONENTS:
        node = config.get(name)
        if not isinstance(node, dict):
            continue
        target = _target(node)
        defaults = {} if target is None else {key: p.default for key, p in inspect.signature(target).parameters.items()}
        own = {key: value for key, value in node.items() if key not in NOT_SHOWN}
        for key, value in flat(own).items():
            default = defaults.get(key)
            if key == "lr" or value != (list(default) if isinstance(default, tuple) else default):
                yield f"`{name}.{key}`: {cell(json.dumps(placeless(value)))}"
    yield f"`seed`: {config.get('seed')}"


def _trained_with(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("seed", "source", *COMPONENTS, "teacher", "evaluators")
    return {name: config[name] for name in names if config.get(name) is not None}


def training_log(view: RunView, steps_per_epoch: float | None) -> dict[str, Any]:
    """Return the table of losses and metrics by step, the exported step's row bold, and whether it is to be folded.

    An average of weights that was exported has its name in the place of its step. Above ten times `MOST_ROWS`, rows
    without a metric are thinned out.
    """
    wide = view.run.wide_metrics
    metric = view.monitor.metric if view.monitor else ""
    keys = _metric_keys(list(wide), metric)
    columns = ["train/loss", *keys]
    table = wide.reindex(columns=columns).dropna(how="all")
    if len(table) > 10 * MOST_ROWS:
        kept = table[keys].notna().any(axis=1) if keys else pd.Series(False, index=table.index)
        kept |= pd.Series(range(len(table)), index=table.index) % (len(table) // MOST_ROWS) == 0
        table = table[kept]
    lines = []
    for step, row in table.iterrows():
        averaged = view.averaged if step == view.step else None
        epoch = f"{int(step) / steps_per_epoch:.4f}" if steps_per_epoch and not averaged else "-"
        loss = "-" if pd.isna(row["train/loss"]) else f"{row['train/loss']:.4f}"
        cells = [epoch, cell(averaged or str(step)), loss, *(_with_gain(wide, step, key) for key in keys)]
        lines.append([f"**{text}**" for text in cells] if step == view.step else cells)
    named = [cell(" ".join(key.split("/")[1:3])) for key in keys]
    header = ["epoch", "step", "training loss", *(f"{name} {metric}" for name in named)]
    return {"table": markdown_table(header, lines) if lines else "", "folded": len(lines) > MOST_ROWS}


def _metric_keys(logged: Sequence[str], metric: str) -> list[str]:
    """Return the keys of a metric, an evaluator's mean after its datasets if there are several."""
    keys = [key for key in logged if key.startswith("eval/") and key.endswith(f"/{metric}") and key.count("/") == 3]
    by: dict[str, list[str]] = {}
    for key in keys:
        by.setdefault(key.split("/")[1], []).append(key)
    found = []
    for name, own in by.items():
        mean = f"eval/{name}/mean/{metric}"
        datasets = [key for key in own if key != mean]
        found += [*datasets, *([mean] if len(datasets) > 1 and mean in own else [])]
    return found


def _with_gain(wide: pd.DataFrame, step: Any, key: str) -> str:
    value = wide.at[step, key]
    if pd.isna(value):
        return "-"
    place, _, metric = key.rpartition("/")
    base = f"{place}/base_{metric}"
    gain = "" if base not in wide or pd.isna(wide.at[step, base]) else f" ({value - wide.at[step, base]:+.4f})"
    return f"{value:.4f}{gain}"


def _speed(view: RunView) -> Iterator[str]:
    facts = view.provenance
    machine = facts.get("machine") or {}
    gpus = [f"{gpu.get('name')} ({gpu.get('memory_gib')} GiB)" for gpu in machine.get("gpus") or ()]
    if machine:
        processor = f"{machine.get('cpu')}, {machine.get('threads')} threads, {machine.get('memory_gib')} GiB of memory"
        yield f"Hardware: {', '.join(gpus)}; {processor}" if gpus else f"Hardware: {processor}; no GPU"
    yield f"Precision: {facts.get('precision', 'not known')}"
    for name, key in (("Pairs", "train/pairs_per_second"), ("Tokens", "train/tokens_per_second")):
        if key in view.keys:
            yield f"{name} a second, median: {view.run.curve(key).median():,.0f}"
    if isinstance(facts.get("training_seconds"), int | float):
        minutes = facts["training_seconds"] / 60
        yield f"Training, evaluations included: {minutes:,.1f} minutes for {facts.get('steps')} steps"
    energy = view.read("energy.json")
    if isinstance(energy.get("all_kwh"), int | float):
        yield f"Electricity, estimated by {energy.get('estimated_by')}: {energy['all_kwh']:.3g} kWh"


def _command(view: RunView) -> str:
    said = [str(word) for word in view.provenance.get("command") or ()]
    if not said:
        return ""
    words = [redact(placeless(word)) for word in said[1:]]
    return " ".join([f"python -m src.{said[0].removesuffix('.py')}", *map(shlex.quote, words)])


def _lineage(view: RunView) -> Iterator[str]:
    """Yield a row a step that made the data: its id and what it was made with."""
    steps = view.read("lineage.json").get("steps") or {}
    for name, step in steps.items():
        before = [step for step in FOLLOWS.get(name, ()) if step in steps]
        words = [f"of {' and '.join(before)}"] if before else []
        described = placeless(step.get("description") or {})
        words += [f"{key} {_short(value)}" for key, value in described.items() if value is not None]
        yield f"| {name} | `{step.get('id')}` | {', '.join(words)} |"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return cell(text, 80)
