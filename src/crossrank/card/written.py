"""Writes the card: everything that a reader of the model should know and the run's folder tells."""

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import safe_open

from crossrank.analysis.run_view import RunView
from crossrank.analysis.runs import stored
from crossrank.card.evaluated import evaluation_parts
from crossrank.card.metadata import base_model, card_data, facts
from crossrank.card.texts import placeless, python_text
from crossrank.card.trained import training_parts
from crossrank.data.description import RECORD

README = "README.md"
CANDIDATES = 5  # in the example


def write_card(view: RunView, export: Path) -> Path:
    """Render the card of the model in `export`, write it there as README.md and return the file.

    What the run's folder does not tell is left out, or said to be unknown; texts and paths are shown as they are, and
    no folder of this machine is named.

    Raises:
        DataError: a file of the run is damaged.
    """
    config = facts(view)
    template = resources.files("crossrank.card").joinpath("templates", "card.md.jinja").read_text(encoding="utf-8")
    card = ModelCard.from_template(
        card_data(view, config, export),
        template_str=template,
        name=view.name,
        averaged=view.averaged,
        base=placeless(base_model(view)),
        example=_example(view),
        model=_model(view, config, export),
        **evaluation_parts(view, export),
        **training_parts(view, config, export),
    )
    card.save(export / README)
    return export / README


def _example(view: RunView) -> dict[str, Any]:
    """Return a question with five documents, as Python literals: of the evaluation, else of the training set.

    Of the evaluation they are the first question's first candidates, with the exported step's scores.
    """
    monitor = view.monitor
    if view.step is not None and monitor is not None:
        scores, texts, asked = view.scores, view.run.documents, view.run.queries
        if len(scores) and len(texts) and len(asked):
            mine = scores[scores["evaluator"] == monitor.evaluator].head(CANDIDATES)
            mine = mine[mine["query_id"] == mine.iloc[0]["query_id"]]
            keys = ["evaluator", "dataset", "document_id"]
            found = mine.merge(texts.drop_duplicates(keys), on=keys)
            first = mine.head(1).merge(asked, on=["evaluator", "dataset", "query_id"])
            return _literals(str(first.iloc[0]["question"]), list(found["text"]))
    rows = view.read(RECORD).get("samples") or [{"question": "a question", "document": "a document"}]
    mine = [row for row in rows if row["question"] == rows[0]["question"]][:CANDIDATES]
    return _literals(rows[0]["question"], [row["document"] for row in mine])


def _literals(question: str, documents: Sequence[str]) -> dict[str, Any]:
    return {"question": python_text(question), "documents": [python_text(text) for text in documents]}


def _model(view: RunView, known: Mapping[str, Any], export: Path) -> dict[str, str]:
    """Return what the model is, a line each."""
    config, tokenizer = stored(export / "config.json"), stored(export / "tokenizer_config.json")
    weights = export / "model.safetensors"
    activation = (config.get("sentence_transformers") or {}).get("activation_fn", "")
    found = {
        "Type": f"cross-encoder, {(config.get('architectures') or ['?'])[0]}",
        "Base model": placeless(base_model(view)) or "random weights",
        "Parameters": f"{_parameters(weights):,}" if weights.is_file() else "",
        "Longest input": f"{tokenizer.get('model_max_length')} tokens of question and document together",
        "Output": f"one logit; CrossEncoder applies {activation.rpartition('.')[2] or 'its default'}",
        "Pooling": str(config.get("classifier_pooling", "")),
        "Language": ", ".join(_listed(known.get("language"))) or "not stated",
        "License": str(known.get("license") or "not stated"),
    }
    return {name: value for name, value in found.items() if value}


def _listed(value: Any) -> list[str]:
    return [] if value is None else list(map(str, value)) if isinstance(value, list) else [str(value)]


def _parameters(weights: Path) -> int:
    with safe_open(weights, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
