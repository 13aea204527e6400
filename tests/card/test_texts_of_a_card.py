import ast

import pytest
from made_runs import HOSTILE
from markdown_it import MarkdownIt

from crossrank.card.texts import cell, placeless, python_text


@pytest.mark.parametrize("text", [*HOSTILE, "a | b", "``` end", "*star* _under_", "x" * 400])
def test_a_cell_shows_the_text_and_nothing_else(text):
    page = f"| a |\n|---|\n| {cell(text)} |\n"
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    (inside,) = [token for token in tokens if token.type == "inline" and token.content != "a"]
    assert {child.type for child in inside.children} <= {"text", "text_special"}
    shown, expected = "".join(child.content for child in inside.children), " ".join(text.split())
    assert shown == (expected if len(expected) <= 300 else f"{expected[:299]}…")


@pytest.mark.parametrize("text", [*HOSTILE, "'''", '"""', "``` end of the block", "back\\slash", "a\nb"])
def test_a_literal_is_the_text_again_and_holds_no_fence(text):
    literal = python_text(text)
    assert ast.literal_eval(literal) == " ".join(text.split())
    assert "`" not in literal


def test_folders_of_this_machine_are_left_out_and_names_kept(tmp_path):
    assert placeless(str(tmp_path)) == tmp_path.name
    assert placeless("source.path=/home/somebody/data/pairs.jsonl") == "source.path=pairs.jsonl"
    assert placeless("paths=[/a/b/nano-nq,~/c/nano-msmarco]") == "paths=[nano-nq,nano-msmarco]"
    assert placeless("../runs/one/export") == "export"
    assert placeless({"a": ["/x/y.json", 3, None], "b": {"c": "sentence-transformers/gooaq"}}) == {
        "a": ["y.json", 3, None],
        "b": {"c": "sentence-transformers/gooaq"},
    }
    assert placeless("https://example.org/a/b") == "https://example.org/a/b"
    assert placeless("answerdotai/ModernBERT-base") == "answerdotai/ModernBERT-base"
