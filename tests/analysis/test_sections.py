"""Against a markdown parser and a terminal; texts that would break a table stand in test_failures_page.py too."""

import io

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from crossrank.analysis.sections import Section, escaped

TEXTS = [
    "a | b", "x\\|y", "[red]z[/red]", "# no heading", "<b>&amp;", "`c` *d* _e_ ~~f~~ $g$", "[h](i)",
    "0.5 [-0.25, +1.0]", "[0.1, 0.2](j)", "[k][0.1, 0.2]", "[0.1, 0.2]: l",
]  # fmt: skip
SECTION = Section("The title", "How to read it.", ("one", "two"), [(text, "2") for text in TEXTS])


def test_markdown_is_a_heading_a_note_and_a_table_of_the_texts_as_they_are():
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(SECTION.as_markdown(3))
    kinds = [token.type for token in tokens]
    assert kinds[:6] == ["heading_open", "inline", "heading_close", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].tag == "h3"
    texts = ["".join(child.content for child in t.children) for t in tokens if t.type == "inline"]
    assert texts[2:] == ["one", "two", *(part for text in TEXTS for part in (text, "2"))]


def test_the_terminal_shows_the_texts_as_they_are():
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(SECTION.as_table())
    shown = console.export_text()
    assert all(text in shown for text in ("The title", "How to read it.", *TEXTS))


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "a\x85b"])
def test_control_characters_are_spaces(text):
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in escaped(text))


@pytest.mark.parametrize("text", ["0.5040 [0.4582, 0.5516]", "-0.1 [-0.2000, +0.1000], p = 1", "1.0 [too few queries]"])
def test_an_interval_is_written_as_it_is_read(text):
    assert escaped(text) == text
