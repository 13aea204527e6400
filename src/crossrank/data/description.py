"""What a training set looks like, for its readers: how many rows, how long their texts are, a few of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossrank.data.pairs import PairIndex
from crossrank.data.tokens import PairEncoder

if TYPE_CHECKING:
    from crossrank.data.training_rows import TrainingRows

FIRST, SAMPLES = 1000, 10  # rows that are measured, as sentence-transformers' card does; rows that are kept
FILE, RECORD = "description.json", "training_data.json"  # in the cache, in a run's folder


def write_description(index: PairIndex, rows: Path, folder: Path) -> None:
    """Write the lengths (characters) and labels of the first rows in the folder `rows`, and some of them, as JSON."""
    asked, shown, labels = (
        np.load(rows / f"{name}.npy", mmap_mode="r")[:FIRST] for name in ("questions", "documents", "labels")
    )
    questions = [index.questions[row] for row in asked.tolist()]
    documents = [index.documents[row] for row in shown.tolist()]
    columns = {"question": _spread(list(map(len, questions))), "document": _spread(list(map(len, documents)))}
    samples = zip(questions[:SAMPLES], documents[:SAMPLES], map(float, labels[:SAMPLES]), strict=True)
    facts = {
        "of_first": len(labels), "characters": columns, "label": _spread(labels),
        "samples": [dict(zip(("question", "document", "label"), row, strict=True)) for row in samples],
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def described(rows: "TrainingRows", cache_dir: Path, encoder: PairEncoder) -> dict[str, Any]:
    """Return what `write_description` wrote of the rows, how many there are, of how many texts, and tokens of pairs.

    A pair's tokens are counted uncut, with the special ones; `cut` is the share of the first rows that have more than
    the encoder's `max_length`.
    """
    facts = json.loads((rows.lineage.folders(cache_dir)["description"] / FILE).read_text(encoding="utf-8"))
    count = facts["of_first"]
    stores = ((rows.question_tokens, rows.questions[:count]), (rows.document_tokens, rows.documents[:count]))
    lengths = np.full(count, encoder.layout.specials)
    for store, texts in stores:
        lengths += store.offsets[texts + 1] - store.offsets[texts]
    return {
        "rows": len(rows), "questions": len(rows.question_tokens), "documents": len(rows.document_tokens),
        **facts, "tokens": _spread(lengths), "cut": float((lengths > encoder.max_length).mean()) if count else 0.0,
    }  # fmt: skip


def _spread(values: Sequence[int] | npt.NDArray[Any]) -> dict[str, float]:
    if not len(values):
        return {"min": 0.0, "mean": 0.0, "max": 0.0}
    return {name: float(getattr(np, name)(values)) for name in ("min", "mean", "max")}
