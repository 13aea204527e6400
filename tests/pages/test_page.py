"""A page as a file: what is read is shown, never run; what runs is named by its hash."""

import base64
import gzip
import hashlib
import json
import re

import pytest
from made_runs import HOSTILE
from page_reader import Reader
from plotly.graph_objects import Figure, Scatter
from plotly.offline import get_plotlyjs

from crossrank.pages.page import render
from crossrank.pages.page_parts import (
    Chapter,
    Code,
    Fold,
    Grid,
    Page,
    Plot,
    Queries,
    Query,
    Text,
    Tile,
    Tiles,
)


def page_with(text):
    figure = Figure([Scatter(x=[1.0, float("nan")], y=[1, 2], name=text)], {"template": "none"})
    parts = [
        Text(text), Code(text), Grid([text, "n"], [[text, "1"]], text, text, sortable=True), Plot(figure, text, text),
        Tiles([Tile(text, text, text)]), Queries(text, [Query(text, text, text, text, text, text)]),
        Fold(text, [Text(text)]),
    ]  # fmt: skip
    return Page(text, text, [Chapter(text, parts)], text)


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_written_is_shown_as_it_is_and_is_no_element(text):
    plain, hostile = Reader(render(page_with("harmless"))), Reader(render(page_with(text)))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert sum(text in seen for seen in hostile.seen) == sum("harmless" in seen for seen in plain.seen)
    data = next(json.loads(content) for kind, content in hostile.scripts if kind == "application/json")
    assert data["data"][0]["name"] == text
    assert data["data"][0]["x"] == [1.0, None]  # JSON has no NaN


def test_only_what_the_policy_names_by_its_hash_would_run():
    reader = Reader(render(page_with("x")))
    policy = next(a["content"] for t, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    ours = [content for kind, content in reader.scripts if kind is None]
    assert len(ours) == 1
    wanted = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (*ours, get_plotlyjs())]
    assert rules["script-src"] == " ".join(f"'sha256-{one}'" for one in wanted)
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_plotly_is_in_the_page_whole_and_only_where_there_is_a_figure():
    reader = Reader(render(page_with("x")))
    packed = next(content for kind, content in reader.scripts if kind == "text/plain")
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    without = render(Page("p", "", [Chapter("a", [Text("x")])]))
    assert len(without) < 50_000
    assert [kind for kind, _ in Reader(without).scripts] == [None]


def test_nothing_is_fetched_from_anywhere():
    for tag, attributes in Reader(render(page_with("x"))).elements:
        for name in ("src", "href", "action", "data", "srcset"):
            assert re.match(r"#|data:,|\./|$", attributes.get(name) or ""), (tag, attributes)
    assert "@import" not in render(page_with("x"))


def test_a_page_is_the_same_each_time():
    assert render(page_with("x")) == render(page_with("x"))
