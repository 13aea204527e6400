"""Figures of a pool: how scores fall with rank, what a policy takes, how close its negatives come to the answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossrank.data.mining import Pool
from crossrank.data.policy import Policy
from crossrank.data.search import NO_CANDIDATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANSWER, TAKEN, LEFT, REFUSED = "an answer", "taken", "could have been taken", "left out"
COLORS = {ANSWER: "tab:green", TAKEN: "tab:blue", LEFT: "lightsteelblue", REFUSED: "tab:red"}
BINS = 60


@dataclass(frozen=True)
class Candidates:
    """What a policy makes of some questions' candidates, each [questions, candidates].

    `fate` is ANSWER, TAKEN (in epoch 0), LEFT (passes, and others were taken), REFUSED (by rank, margin, score, twin
    or teacher) or "" where there is no candidate or the policy does not look so deep. `margins` are the score of the
    question's lowest-scored answer less the candidate's.
    """

    scores: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32]
    fate: npt.NDArray[np.str_]
    answer_scores: npt.NDArray[np.float32]  # [questions]: the lowest


def candidates_of(pool: Pool, policy: Policy, most: int = 5000, seed: int = 12) -> Candidates:
    """Return the candidates of `most` questions at random, of all where there are no more."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pool))[:most])
    own, own_scores, rows = pool.positives_of(chosen)
    lowest = np.full(len(chosen), np.inf, np.float32)
    np.minimum.at(lowest, rows, own_scores)
    survives = policy.surviving(pool, chosen)
    looked_at = slice(survives.shape[1])
    ids, scores = np.array(pool.candidates[chosen, looked_at]), np.array(pool.scores[chosen, looked_at])
    fate = np.where(survives, LEFT, REFUSED)
    taken = policy.select(pool, chosen).columns
    places = np.nonzero(taken != NO_CANDIDATE)
    fate[places[0], taken[places]] = TAKEN
    asked = np.arange(len(chosen), dtype=np.int64)[:, None] << 32
    fate[np.isin(asked + ids, (rows << 32) + own)] = ANSWER
    fate[ids == NO_CANDIDATE] = ""
    return Candidates(scores, lowest[:, None] - scores, fate, lowest)


def scores_by_rank(found: Candidates, axes: "Axes") -> None:
    """Draw the median score of the candidates at each rank with its 10 to 90 % band, answers left out, and theirs."""
    scores = np.where((found.fate == "") | (found.fate == ANSWER), np.nan, found.scores)
    ranks = np.flatnonzero(~np.isnan(scores).all(axis=0))
    low, middle, high = np.nanquantile(scores[:, ranks], [0.1, 0.5, 0.9], axis=0)
    axes.plot(ranks + 1, middle, color="tab:blue", label="candidates: median, 10 to 90 %")
    axes.fill_between(ranks + 1, low, high, color="tab:blue", alpha=0.15, linewidth=0)
    low, middle, high = np.quantile(found.answer_scores, [0.1, 0.5, 0.9])
    axes.axhline(middle, color="tab:green", linestyle="--", label="answers: median, 10 to 90 %")
    axes.axhspan(low, high, color="tab:green", alpha=0.08, linewidth=0)
    axes.set(xlabel="rank in the pool", ylabel="score of the miner", title=f"Scores of {len(scores):,} questions")
    axes.legend()


def fates_by_rank(found: Candidates, axes: "Axes") -> None:
    """Draw, for each rank of the pool, the share of questions whose candidate there is an answer, taken or left out."""
    ranks = np.arange(1, found.fate.shape[1] + 1)
    below = np.zeros(len(ranks))
    for fate, color in COLORS.items():
        share = 100 * (found.fate == fate).mean(axis=0)
        axes.bar(ranks, share, bottom=below, width=1.0, color=color, label=fate)
        below += share
    taken = (found.fate == TAKEN).sum(axis=1)
    told = f"{taken.mean():.2f} negatives a question; {(taken == 0).sum():,} of {len(taken):,} questions have none"
    axes.set(
        xlabel="rank in the pool", ylabel="% of questions", title=told, xlim=(0.5, len(ranks) + 0.5), ylim=(0, 100)
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def margin_histogram(found: Candidates, axes: "Axes") -> None:
    """Draw how far the candidates' scores lie below the lowest answer's: all that are no answer, and the taken ones.

    The outer 1 % at either end are drawn in the outermost bins.
    """
    others = found.margins[(found.fate != "") & (found.fate != ANSWER)]
    taken = found.margins[found.fate == TAKEN]
    edges = _edges(others)
    for margins, label, fill in ((others, "all candidates", True), (taken, "those that are taken", False)):
        counts, _ = np.histogram(np.clip(margins, edges[0], edges[-1]), edges)
        color = COLORS[LEFT] if fill else COLORS[TAKEN]
        axes.stairs(100 * counts / max(1, counts.sum()), edges, fill=fill, color=color, linewidth=2, label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    above = float((taken < 0).mean()) if len(taken) else 0.0
    axes.set(xlabel="answer's score less the candidate's", ylabel="% of them",
             title=f"{above:.1%} of the negatives that are taken score above an answer")  # fmt: skip
    axes.legend()


def _edges(margins: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the edges of equal bins, one edge at 0, over the middle 98 % of the margins."""
    low, high = np.quantile(margins, [0.01, 0.99]) if len(margins) else (0.0, 0.0)
    width = max((high - low) / BINS, 1e-6)
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)
