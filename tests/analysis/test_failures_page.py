"""The page and the terminal show the numbers, and any text as it is."""

import io

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from test_failures import DOCUMENTS, MARKUP, QUERIES, RANK, ROWS, SCORES, hand_worked

from crossrank.analysis.failures import failures
from crossrank.analysis.failures_page import as_markdown, as_tables
from crossrank.evaluation.significance import mean_interval


def test_markdown_is_of_the_numbers():
    page = as_markdown(failures(*hand_worked(), "map"))
    assert page.startswith("## Where it fails: map\n\n### Helped most\n\n2 helped, 2 hurt, 2 unchanged")
    assert "| a | q1 | How high is K2? | 0.2500 to 1.0000 (+0.7500) | 4 to 1 | K2\\_is: HIGH | a second text |" in page
    assert "| 4-10 | 1 | 0 | 0 | 0 | 0 |" in page
    assert f"| {RANK} | 4-10 | 1 | 1.0000 [too few queries] | +0.7500 [too few queries] |" in page
    low, high = mean_interval([0.5, 0.0625], 0, 1)[1:]
    less, more = mean_interval([0.0, -0.4375], -1, 1)[1:]
    assert f"| 2-3 | 2 | 0.2812 [{low:.4f}, {high:.4f}] | -0.2188 [{less:+.4f}, {more:+.4f}] |" in page


def with_text(text):
    rows = pd.DataFrame([("a|b", "q`1", "map", 1.0, 0.0, 1.0, 1, 2, 0.0)], columns=ROWS)
    queries = pd.DataFrame([("a|b", "q`1", text, 1, 2, 1.0)], columns=QUERIES)
    scores = [("a|b", "q`1", "d", 1, 1.0, True, 1), ("a|b", "q`1", "e", 2, 0.5, False, 0)]
    documents = pd.DataFrame([("a|b", d, text) for d in "de"], columns=DOCUMENTS)
    return failures(rows, queries, pd.DataFrame(scores, columns=SCORES), documents, "map")


@pytest.mark.parametrize("text", [MARKUP, "\\", "\\|", "\\\\|", "|" * 300, "`" * 7, "<!-- ", "\x85\u2028a", "# h\n- l"])
def test_a_markdown_parser_gives_back_every_text_as_it_is(text):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(as_markdown(with_text(text)))
    first_table = tokens[[token.type for token in tokens].index("table_open") :]
    cells = [first_table[i + 1] for i, token in enumerate(first_table) if token.type == "td_open"][:7]
    assert all({child.type for child in cell.children} <= {"text", "text_special"} for cell in cells)
    shown = ["".join(child.content for child in cell.children) for cell in cells]
    found = with_text(text).helped.iloc[0]
    assert (shown[0], shown[1]) == ("a|b", "q`1")
    assert [shown[2], shown[5], shown[6]] == [found["question"], found["relevant"], found["other"]]
    assert [token.type for token in tokens].count("table_open") == 4


@pytest.mark.parametrize("text", [MARKUP, "[red]loud[/red]", "[/]", ":smile:", "[link=http://x]y[/link]"])
def test_the_terminal_shows_texts_literally(text):
    found = with_text(text)
    console = Console(width=1000, file=io.StringIO(), record=True)
    for table in as_tables(found):
        console.print(table)
    shown = console.export_text()
    assert shown.count(found.helped["question"][0]) == 3
    assert "\x1b" not in shown


@pytest.mark.parametrize("text", [MARKUP, "tab\there", "\x00nul", "a\x9bb"])
def test_texts_are_one_line_without_control_characters(text):
    shown = with_text(text).helped["question"][0]
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert shown == " ".join(shown.split())


def test_long_texts_are_cut_after_a_word():
    words = " ".join(["seven77"] * 40)
    shown = with_text(words).helped["relevant"][0]
    assert shown == " ".join(["seven77"] * 25) + "…"
    assert with_text("x" * 200).helped["relevant"][0] == "x" * 200
    assert with_text("a " + "字" * 300).helped["relevant"][0] == "a " + "字" * 197 + "…"  # no space to cut at


def test_the_terminal_has_every_cell_of_the_page():
    found = failures(*hand_worked(), "map")
    console = Console(width=400, file=io.StringIO(), record=True)
    for table in as_tables(found):
        console.print(table)
    shown = console.export_text()
    for line in as_markdown(found).splitlines():
        if line.startswith("|") and "---" not in line:
            assert all(cell.strip().replace("\\", "") in shown for cell in line.split("|"))
