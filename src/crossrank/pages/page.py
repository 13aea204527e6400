"""A page as one file of HTML that needs nothing else: no network, no folder beside it."""

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from crossrank.pages.page_parts import Page, Plot

FOLDER = "templates"
# what runs is what is known by its hash here: a text that got past the escaping would still not be executed
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)


def render(page: Page) -> str:
    """Return the page as HTML, with plotly's code in it (2 MB, compressed) if it has figures."""
    script = _asset("page.js")
    drawn = bool(page.plots)
    hashes = [_hash(script), *([_hash(get_plotlyjs())] if drawn else [])]
    text = _template().render(
        page=page,
        policy=POLICY.format(scripts=" ".join(hashes)),
        style=Markup(_asset("page.css")),  # ours, as is the script
        script=Markup(script),
        bundle=_bundle() if drawn else "",
    )
    return text.strip() + "\n"


def _template() -> Template:
    return _environment().get_template("page.html.jinja")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("crossrank.pages", FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["figure"] = _figure
    return found


def _figure(plot: Plot) -> object:
    """Return a figure for JSON: what is no number becomes null."""
    return json.loads(plot.figure.to_json())


@cache
def _bundle() -> str:
    """Return plotly's code, compressed by gzip and in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def _hash(script: str) -> str:
    """Return what a content security policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return resources.files("crossrank.pages").joinpath(FOLDER, name).read_text(encoding="utf-8")
