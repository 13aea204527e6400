import ast
import json
from pathlib import Path

import exported
import numpy as np
import pytest

from crossrank.inference import consumer
from crossrank.inference.in_memory import InMemory
from crossrank.models.export import export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model, encoder = exported.built("bert")
    folder = export(model, encoder, tmp_path_factory.mktemp("consumer") / "model")
    return str(folder), InMemory(model, encoder)


def test_it_can_be_run_where_there_is_nothing_else_by_an_old_python():
    source = Path(consumer.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("crossrank") for name in names)
    at_top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert at_top == {"json", "sys"}


def test_both_libraries_give_logits_and_what_they_make_of_them(model):
    folder, memory = model
    groups, longest = memory.probe.groups, memory.probe.longest
    first = consumer.by_sentence_transformers(folder, groups, 48)
    second = consumer.by_transformers(folder, groups, longest)
    for answer in (first, second):
        np.testing.assert_allclose(answer["logits"], memory.padded, atol=1e-5, rtol=0)
    np.testing.assert_allclose(first["scores"], 1 / (1 + np.exp(-memory.padded)), atol=1e-5, rtol=0)
    assert first["cuts_at"] == 48
    assert second["ids"] == memory.ids


def test_where_it_cuts_by_itself_is_told_and_not_what_it_is_held_to(model):
    folder, memory = model
    answer = consumer.by_sentence_transformers(folder, memory.probe.groups[1:2], 12)
    assert answer["cuts_at"] == 48
    assert abs(answer["logits"][0] - memory.padded[len(memory.probe.groups[0])]) > 1e-3


@pytest.mark.parametrize("alone", [False, True])
def test_a_request_is_answered_by_what_is_there(alone, model, tmp_path, monkeypatch):
    def nothing(*_):
        raise ImportError("no sentence-transformers")

    if alone:
        monkeypatch.setattr(consumer, "by_sentence_transformers", nothing)
    folder, memory = model
    asked = {"folder": folder, "groups": memory.probe.groups[:1], "longest": memory.probe.longest, "max_length": 48}
    (tmp_path / "request").write_text(json.dumps(asked))
    consumer.main(str(tmp_path / "request"), str(tmp_path / "answer"))
    answers = json.loads((tmp_path / "answer").read_text())
    assert [a["consumer"] for a in answers] == ["transformers", "sentence-transformers"][: 1 if alone else 2]
    for answer in answers:
        np.testing.assert_allclose(answer["logits"], memory.padded[: len(memory.probe.groups[0])], atol=1e-5, rtol=0)
