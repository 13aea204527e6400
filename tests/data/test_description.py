import json
from types import SimpleNamespace

import numpy as np
import pytest

from crossrank.data import description
from crossrank.data.description import described, write_description
from crossrank.data.lineage import Lineage, Step
from crossrank.data.tokens import TokenStore
from crossrank.data.training_rows import TrainingRows

QUESTIONS, DOCUMENTS = ["why", "how so"], ["because", "like this and that", ""]


@pytest.fixture
def rows(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    columns = {"questions": [0, 0, 1, 1], "documents": [0, 1, 1, 2], "labels": [1, 0, 1, 0]}
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", np.array(values, np.uint8 if name == "labels" else np.int32))
    return folder


def test_the_first_rows_are_measured_and_some_kept(rows, monkeypatch):
    monkeypatch.setattr(description, "FIRST", 3)
    monkeypatch.setattr(description, "SAMPLES", 2)
    lineage = Lineage({"rows": Step("0123456789abcdef", {})})
    folder = lineage.folders(rows)["description"]
    folder.mkdir(parents=True)
    write_description(SimpleNamespace(questions=QUESTIONS, documents=DOCUMENTS), rows, folder)
    stores = [
        TokenStore(np.zeros(9, np.int32), np.array(ends)) for ends in ([0, 1, 3], [0, 1, 5, 5])
    ]  # tokens of the two questions: 1, 2; of the three documents: 1, 4, 0
    columns = [np.load(rows / f"{name}.npy") for name in ("questions", "documents", "labels")]
    made = TrainingRows(rows, *columns, *stores, lineage=lineage)
    found = described(made, rows, SimpleNamespace(max_length=7, layout=SimpleNamespace(specials=3)))
    assert found == {
        "rows": 4, "questions": 2, "documents": 3, "of_first": 3,
        "characters": {
            "question": {"min": 3.0, "mean": 4.0, "max": 6.0},
            "document": {"min": 7.0, "mean": pytest.approx((7 + 18 + 18) / 3), "max": 18.0},
        },
        "label": {"min": 0.0, "mean": pytest.approx(2 / 3), "max": 1.0},
        "samples": [
            {"question": "why", "document": "because", "label": 1.0},
            {"question": "why", "document": "like this and that", "label": 0.0},
        ],
        "tokens": {"min": 5.0, "mean": pytest.approx((5 + 8 + 9) / 3), "max": 9.0},
        "cut": pytest.approx(2 / 3),
    }  # fmt: skip


def test_a_run_writes_down_what_it_trained_on(smoke_run):
    found = json.loads((smoke_run.folder / "training_data.json").read_text())
    provenance = json.loads((smoke_run.folder / "provenance.json").read_text())
    assert found["rows"] == provenance["data"]["rows"]
    assert found["steps_per_epoch"] == -(-found["rows"] // 8)
    assert [row["label"] for row in found["samples"][:2]] == [1.0, 0.0]
