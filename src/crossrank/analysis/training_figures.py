"""Figures of how a training went: the step that was kept, speed, and what the loss was made of."""

import re
from typing import TYPE_CHECKING

from crossrank.analysis.chosen import best_step
from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP = "optimizer step"
SHARES = {
    "train/evaluation_share": "evaluating, of all time so far",
    "train/data_wait_share": "waiting for data, of training time",
    "train/padding_share": "padding, of all tokens",
}
OF_RANK = "health/loss_of_rank_"


def monitored_curve(run: RunFolder, axes: "Axes") -> None:
    """Draw the metric that chose the best step, with its 95 % band, that step marked and the first stage dashed."""
    best = best_step(run)
    key = f"eval/{best.evaluator}/{best.dataset}/"
    value, low, high, base = (
        run.curve(key + name)
        for name in (best.metric, f"{best.metric}_low", f"{best.metric}_high", f"base_{best.metric}")
    )
    axes.plot(value.index, value, marker="o", color="tab:blue", label="reranked (band: 95 % interval)")
    axes.fill_between(value.index, low, high, color="tab:blue", alpha=0.15, linewidth=0)
    axes.plot(base.index, base, linestyle="--", color="grey", label="first stage")
    axes.plot(best.step, value[best.step], marker="*", markersize=16, color="tab:orange", linestyle="", label="kept")
    axes.set(xlabel=STEP, ylabel=f"{best.metric} of {best.dataset}", title=f"Kept: step {best.step}")
    axes.set_ylim(bottom=0)
    axes.legend()


def throughput(run: RunFolder, axes: "Axes") -> None:
    """Draw the pairs trained on a second, without evaluations, and their median dashed."""
    speed = run.curve("train/pairs_per_second")
    axes.plot(speed.index, speed, marker=".", color="tab:blue")
    axes.axhline(speed.median(), linestyle="--", color="grey", label=f"median {speed.median():,.0f}")
    axes.set(xlabel=STEP, ylabel="pairs a second", title="Speed of training")
    axes.set_ylim(bottom=0)
    axes.legend()


def time_shares(run: RunFolder, axes: "Axes") -> None:
    """Draw, in percent, what took time or tokens and taught nothing: evaluations, waiting for data, padding."""
    for key, label in SHARES.items():
        share = 100 * run.curve(key)
        axes.plot(share.index, share, marker=".", label=label)
    axes.set(xlabel=STEP, ylabel="%", title=f"What is not training, in {run.result['seconds'] / 60:.1f} minutes")
    axes.set_ylim(0, 100)
    axes.legend()


def score_separation(run: RunFolder, axes: "Axes") -> None:
    """Draw the mean logits of answers and of negatives by step."""
    for key, label, color in (("positive", "answers", "tab:green"), ("negative", "negatives", "tab:red")):
        score = run.curve(f"health/{key}_score")
        axes.plot(score.index, score, marker=".", label=label, color=color)
    axes.set(xlabel=STEP, ylabel="mean logit in a step", title="Scores of answers and negatives")
    axes.legend()


def losses_by_rank(run: RunFolder, axes: "Axes") -> None:
    """Draw the mean loss of the answers and of negatives by their rank, hardest first.

    Raises:
        DataError: the run did not log them, as one without the callback `health` does not.
    """
    keys = sorted((key for key in run.metrics["key"].unique() if key.startswith(OF_RANK)), key=_lowest)
    if not keys:
        raise DataError(f"{run.path}: never logged {OF_RANK}*; the callback health does")
    for key in keys:
        loss = run.curve(key)
        axes.plot(loss.index, loss, marker=".", label=_named(key))
    axes.set(xlabel=STEP, ylabel="mean loss of a pair", title="Which pairs the loss comes from")
    axes.legend()


def _lowest(key: str) -> int:
    return int(_numbers(key)[0])


def _named(key: str) -> str:
    numbers = _numbers(key)
    if numbers == ["0"]:
        return "answers"
    return f"negatives of rank {' to '.join(numbers)}{' and beyond' if 'from' in key else ''}"


def _numbers(key: str) -> list[str]:
    return re.findall(r"\d+", key)
