"""What docs/ names is there."""

import ast
import re

import pytest
from conftest import ROOT

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
