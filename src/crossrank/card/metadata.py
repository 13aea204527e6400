"""The card's front matter: what the hub indexes, with every metric as a model-index."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from crossrank.analysis.run_view import RunView
from crossrank.data.description import RECORD
from crossrank.hub import PYPI

TASK = ("cross-encoder-reranking", "Cross Encoder Reranking")  # as sentence-transformers' cards call it
LIBRARY = "sentence-transformers"


def facts(view: RunView) -> dict[str, Any]:
    """Return the node `card` of the config: what nobody but the author of a model knows."""
    node = view.config.get("card")
    return dict(node) if isinstance(node, dict) else {}


def base_model(view: RunView) -> str:
    """Return what the training started from, "" where that were random weights."""
    return next(_paths(view.config.get("model")), "")


def _paths(node: Any) -> Iterator[str]:
    """Yield the values of the keys `path` in a node and in those within it, such as a backbone around another."""
    if isinstance(node, dict):
        if isinstance(node.get("path"), str):
            yield node["path"]
        for child in node.values():
            yield from _paths(child)


def card_data(view: RunView, known: Mapping[str, Any], export: Path) -> ModelCardData:
    """Return the front matter."""
    base = base_model(view)
    on_hub = bool(base) and not base.startswith(PYPI) and not Path(base).is_dir()
    rows = view.read(RECORD).get("rows")
    loss = loss_name(view)
    tags = [LIBRARY, "cross-encoder", "reranker", "crossrank", "generated_from_trainer"]
    tags += [f"dataset_size:{rows}"] if rows else []
    results = list(eval_results(view))
    return ModelCardData(
        language=known.get("language"),
        license=known.get("license"),
        datasets=list(known.get("datasets") or []) or None,
        library_name=LIBRARY,
        pipeline_tag="text-ranking",
        tags=[*tags, *([f"loss:{loss}"] if loss else [])],
        base_model=base if on_hub else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=view.name if results else None,
        eval_results=results or None,
        **_emissions(view),
    )


def loss_name(view: RunView) -> str:
    """Return what the loss is called, "" where that is not known."""
    node = view.config.get("loss")
    return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, dict) else ""


def eval_results(view: RunView) -> Iterator[EvalResult]:
    """Yield each metric of each dataset at the exported step, under the protocol of the first."""
    for evaluator, rows in view.summaries.items():
        for row in (row for row in rows if row.protocol == rows[0].protocol):
            name = row.dataset if row.dataset != "mean" else f"{evaluator} mean"
            yield EvalResult(
                task_type=TASK[0], task_name=TASK[1], dataset_type=name.lower().replace(" ", "-"), dataset_name=name,
                metric_type=row.metric, metric_name=row.metric.capitalize(), metric_value=round(row.after.mean, 4),
            )  # fmt: skip


def _emissions(view: RunView) -> dict[str, Any]:
    """Return the emissions as the hub reads them: grams of CO2, where they were estimated."""
    energy = view.read("energy.json")
    mass, hardware = energy.get("co2_kg"), view.provenance.get("machine") or {}
    if not isinstance(mass, int | float):
        return {}
    gpus = [str(gpu.get("name")) for gpu in hardware.get("gpus") or () if isinstance(gpu, dict)]
    found = {
        "emissions": round(mass * 1000, 3), "source": str(energy.get("estimated_by")), "training_type": "fine-tuning",
        "geographical_location": str(energy.get("country")),
        "hardware_used": ", ".join(gpus) or str(hardware.get("cpu")),
    }  # fmt: skip
    return {"co2_eq_emissions": found}
