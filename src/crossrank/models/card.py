"""The README of an exported model."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from crossrank.data.lineage import FOLLOWS, Lineage
from crossrank.hub import Asset

TEMPLATE = """---
{card_data}
---

# {name}

A cross-encoder reranker trained with crossrank from `{base}` on {pairs:,} labelled pairs; the weights are those of
optimizer step {step}, the best by the monitored metric.

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("{folder}")
scores = model.predict([("a question", "a document"), ("a question", "another document")])
```

## Evaluation

Gains are over the first stage; the interval is a paired bootstrap over queries. The step was chosen on one of these
datasets, so its own numbers are slightly optimistic.

{table}

## Lineage

| step | id | what it is |
|---|---|---|
{steps}

Each id is a hash of what its step depends on, the steps before it included; `lineage.json` has them in full.
"""


def write_card(folder: Path, name: str, step: int, pairs: int, base: Asset, table: str, lineage: Lineage) -> None:
    """Write `README.md` into an exported model's folder."""
    local = Path(base.path).is_dir()
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["sentence-transformers", "cross-encoder", "reranker", "crossrank"],
        base_model=None if local or ":" in base.path else base.path,
    )
    text = TEMPLATE.format(
        card_data=data.to_yaml(), name=name, base=Path(base.path).name if local else base.path, pairs=pairs, step=step,
        folder=folder.name, table=table, steps="\n".join(_rows(lineage)),
    )  # fmt: skip
    ModelCard(text).save(folder / "README.md")


def _rows(lineage: Lineage) -> Iterator[str]:
    steps = lineage.published().steps
    for name, step in steps.items():
        words = [f"{key} {_short(value)}" for key, value in step.description.items() if value is not None]
        before = [f"of {' and '.join(step for step in FOLLOWS[name] if step in steps)}"] if FOLLOWS[name] else []
        yield f"| {name} | `{step.id}` | {', '.join([*before, *words])} |"


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return textwrap.shorten(text, 80, placeholder="...").replace("|", "\\|").replace("\n", " ")
