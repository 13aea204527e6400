"""What docs/ names is there."""

import ast
import re

import pytest
from conftest import ROOT

from crossrank.audit.leaks import ANSWERS, KINDS, QUESTIONS
from crossrank.inference.parity import TOLERANCE
from crossrank.inference.probe import MOST_WORDS, Probe
from crossrank.models.onnx_export import FP32, INT8, OPSET

TESTS = {file.name: file for file in (ROOT / "tests").rglob("test_*.py")}
NAMED = re.findall(r"`(test_\w+\.py)::(\w+)`", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_every_test_that_a_fault_names_is_there(file, name):
    tree = ast.parse(TESTS[file].read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_names_its_test():
    first_section = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").partition("\n## ")[0]
    rows = [line for line in first_section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert all(re.search(r"\| `test_\w+\.py::\w+` \|$", row) for row in rows)


def test_the_leaks_page_names_the_kinds_and_the_thresholds_that_hold():
    page = " ".join((ROOT / "docs" / "data.md").read_text(encoding="utf-8").split())
    assert all(f"| `{kind}` |" in page for kind in KINDS)
    asked, answered = (
        f"{near.words} word{'s' * (near.words > 1)} and at least {near.threshold}" for near in (QUESTIONS, ANSWERS)
    )
    assert f"questions {asked}, answers {answered}" in page
    assert f"{QUESTIONS.permutations} permutations" in page
    assert QUESTIONS.permutations == ANSWERS.permutations


def test_the_export_page_names_the_figures_that_hold():
    page = " ".join((ROOT / "docs" / "export.md").read_text(encoding="utf-8").split())
    assert f"{len(Probe(128).pairs)} fixed pairs" in page
    assert f"A logit may differ by {TOLERANCE:.0e}, or".replace("e-0", "e-") in page
    assert f"a longer `max_length` than {MOST_WORDS} are not scored" in page
    assert f"opset {OPSET};" in page
    assert f"`{FP32}`, `{INT8}`" in page
