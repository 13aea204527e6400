"""A run as one page of HTML."""

import importlib.metadata

from crossrank.analysis.run_view import RunView
from crossrank.pages import quality_chapters as quality
from crossrank.pages import record_chapters as record
from crossrank.pages.page import render
from crossrank.pages.page_parts import Page

CLOCK = str.maketrans({"T": " ", "Z": " UTC"})
FOOTER = "Made by crossrank {version}, from the files of {folder}."


def run_page(view: RunView) -> str:
    """Return the page of a run, of what is there: it may have no evaluation, and need not have finished.

    Raises:
        DataError: a file of the run is damaged.
    """
    chapters = [
        quality.headline(view), record.config(view), quality.curves(view), quality.results(view),
        quality.queries(view), quality.calibration(view), record.health(view), record.throughput(view),
        record.lineage(view), record.environment(view),
    ]  # fmt: skip
    footer = FOOTER.format(version=importlib.metadata.version("crossrank"), folder=view.run.path.resolve().name)
    return render(Page(view.name, _subtitle(view), chapters, footer))


def _subtitle(view: RunView) -> str:
    seconds = view.result.get("seconds")
    words = [
        "A training run" if view.result else "A training run that has not finished",
        f"started {str(view.provenance['started']).translate(CLOCK)}" if "started" in view.provenance else "",
        f"{view.last_step:,} steps",
        f"{record.duration(seconds)} in all" if isinstance(seconds, int | float) else "",
    ]
    return ", ".join(filter(None, words))
