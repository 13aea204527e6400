"""The pages in a real browser, without a network: what is drawn, what a person can do, and what does not run."""

import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest
from made_runs import HOSTILE, write_run, write_sweep

from crossrank.analysis.run_view import view
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import summary
from crossrank.analysis.sweeps import SweepFolder
from crossrank.pages.html_report import run_page
from crossrank.pages.sweep_report import sweep_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
MOST = 5 * 2**20  # bytes
PHONE, DESK = (390, 844), (1280, 900)  # pixels

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

FIGURES = """() => [...document.querySelectorAll(".plot")].map((plot) => {
  const drawn = [...plot.querySelectorAll(".scatterlayer path, .barlayer path")];
  const marks = drawn.map((mark) => mark.getBoundingClientRect());
  const canvas = plot.querySelector("svg.main-svg").getBoundingClientRect();
  return {
    name: plot.getAttribute("aria-label"), width: canvas.width, height: canvas.height,
    marks: marks.filter((mark) => mark.width + mark.height > 0).length,
  };
})"""


@dataclass
class Opened:
    """A page, and what it has done that it should not have."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self):
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "run": run_page(view(write_run(folder / "made", strength=2.0))),
        "sweep": sweep_page(SweepFolder(write_sweep(folder / "made_sweep"))),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def opened(browser, files):
    """Open a page, or return it as the test before left it: drawing takes a second."""
    pages = {}

    def open_page(name, size=DESK, scheme="light", script=True):
        key = (name, size, scheme, script)
        if key not in pages:
            context = browser.new_context(
                viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme,
                java_script_enabled=script, has_touch=size == PHONE, is_mobile=size == PHONE,
            )  # fmt: skip
            pages[key] = Opened(context.new_page())
            pages[key].listen()
            pages[key].page.goto((files / f"{name}.html").as_uri())
            if script:
                pages[key].page.wait_for_selector("html[data-drawn]", state="attached")
        return pages[key]

    return open_page


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_every_figure_is_drawn_without_a_word_and_without_a_network(opened, files, name, size, scheme):
    found = opened(name, size, scheme)
    figures = found.page.evaluate(FIGURES)
    assert len(figures) == {"run": 9, "sweep": 4}[name]
    for figure in figures:
        assert figure["marks"] > 0, figure
        assert figure["width"] > 200, figure
        assert figure["height"] > 100, figure
    assert found.complaints == []
    assert found.requests == [(files / f"{name}.html").as_uri()]
    assert found.page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert (files / f"{name}.html").stat().st_size < MOST


def test_figures_and_text_follow_the_system_and_the_button(opened):
    colours = """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
        getComputedStyle(document.querySelector(".plot .js-line")).stroke,
        getComputedStyle(document.querySelector(".plot .xtick text")).fill]"""
    light, dark = (opened("run", scheme=scheme).page for scheme in ("light", "dark"))
    in_light, in_dark = light.evaluate(colours), dark.evaluate(colours)
    assert all(one != other for one, other in zip(in_light, in_dark, strict=True))
    assert light.inner_text("#theme") == "Dark"
    light.click("#theme")
    light.wait_for_function(f"({colours})()[2] === '{in_dark[2]}'")
    assert light.evaluate(colours) == in_dark
    assert light.inner_text("#theme") == "Light"
    light.click("#theme")
    light.wait_for_function(f"({colours})()[2] === '{in_light[2]}'")
    assert light.evaluate(colours) == in_light


def column(page, number):
    return page.locator("#jobs table.sortable").first.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_a_click_on_a_column_sorts_and_a_second_one_turns_it(opened):
    page = opened("sweep").page
    value = page.locator("#jobs th button", has_text="ndcg@10")
    value.click()
    falling = [text.split()[0] for text in column(page, 3)]
    assert falling[:4] == sorted(falling[:4], reverse=True)
    assert falling[4:] == ["-", "-"]
    value.click()
    rising = [text.split()[0] for text in column(page, 3)]
    assert rising == [*sorted(falling[:4]), "-", "-"]  # what has no value stays at the end
    assert page.locator("#jobs th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.locator("#jobs th button", has_text="job").click()
    assert column(page, 1) == sorted(column(page, 1))


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_hostile_texts_are_read_and_not_obeyed(opened, name):
    found = opened(name)
    seen = " ".join(found.page.inner_text("body").split())
    shown = HOSTILE if name == "run" else HOSTILE[:2]
    assert [text for text in shown if " ".join(text.split()) not in seen] == []
    assert found.page.locator("main img, main b").count() == 0
    assert found.complaints == []


def test_what_would_get_past_the_escaping_would_not_run(opened, files):
    page = (files / "run.html").read_text(encoding="utf-8")
    evil = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\"><main>"
    (files / "evil.html").write_text(page.replace("<main>", evil, 1), encoding="utf-8")
    found = opened("evil")
    assert found.page.title() == "made"
    assert sum("Content Security Policy" in said for said in found.complaints) >= 2


def test_without_scripts_the_numbers_are_there(opened, files):
    page = opened("run", script=False).page
    run = RunFolder(files / "made")
    row = next(r for r in summary(run, run.result["best_step"]) if (r.dataset, r.metric) == ("mean", "ndcg@10"))
    assert f"{row.after.mean:.4f}" in page.inner_text("#headline")
    assert f"{row.gain.mean:+.4f}" in page.inner_text("#results")
    assert "drawn by a script" in page.inner_text("#curves")


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_the_contents_stay_in_sight_and_lead_to_their_chapters(opened, size, scheme):
    page = opened("run", size, scheme).page
    page.click("nav a[href='#calibration']")
    page.wait_for_function("document.querySelector('#calibration').getBoundingClientRect().top < 100")
    box = page.locator("nav").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + min(box["height"], 40) <= size[1]
    page.wait_for_selector("nav a[href='#calibration'][aria-current]", state="attached")


def test_a_table_that_is_too_wide_scrolls_in_its_own_box(opened):
    page = opened("run", PHONE, "dark").page
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map((b) => [b.scrollWidth, b.clientWidth])")
    assert any(inside > outside for inside, outside in boxes)
    assert all(outside <= PHONE[0] for _, outside in boxes)
