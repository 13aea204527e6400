"""Are the mined negatives negative? A sample of what the policy takes, beside the answers of its questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossrank.analysis.failures import short
from crossrank.analysis.sections import Section
from crossrank.data.mining import Pool
from crossrank.data.pairs import PairIndex
from crossrank.data.policy import Policy
from crossrank.data.readers import read_rows
from crossrank.data.search import NO_CANDIDATE
from crossrank.data.teacher import Teacher
from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval, stratified_interval

SHEET = ("question", "answer", "candidate", "rank", "score", "margin", "teacher", "teacher_of_answer")
LABELS = {"1": 1.0, "0": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
BINS = 10


@dataclass(frozen=True)
class Sampled:
    """The negatives of some questions.

    `rows` has one row a negative: question_id, question, answer (the question's answer that the miner scores lowest),
    candidate_id, candidate, rank (its place in the pool, from 1), score, margin (the answer's score less the
    candidate's), and, where a teacher was asked, the probabilities teacher and teacher_of_answer (the highest among
    the question's answers).
    """

    rows: pd.DataFrame
    questions: int
    without: int  # questions that have no negative

    @property
    def asked(self) -> bool:
        """Whether a teacher judged the rows."""
        return "teacher" in self.rows


def sample(pool: Pool, policy: Policy, index: PairIndex, size: int, seed: int) -> Sampled:
    """Return the negatives (of epoch 0) of `size` questions at random, of all where there are no more."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pool))[:size])
    taken = policy.select(pool, chosen)
    rows, places = np.nonzero((taken.documents != NO_CANDIDATE) & ~taken.positive)
    ids, columns = taken.documents[rows, places], taken.columns[rows, places]
    lowest = _lowest_answers(pool, chosen)
    scores = pool.scores[chosen[rows], columns]
    frame = pd.DataFrame(
        {
            "question_id": chosen[rows],
            "question": [index.questions[q] for q in chosen[rows]],
            "answer": [index.documents[d] for d in lowest["document"].to_numpy()[rows]],
            "candidate_id": ids,
            "candidate": [index.documents[d] for d in ids],
            "rank": columns + 1,
            "score": scores,
            "margin": lowest["score"].to_numpy()[rows] - scores,
        }
    )
    return Sampled(frame, len(chosen), len(chosen) - len(set(rows)))


def judged(sampled: Sampled, pool: Pool, index: PairIndex, teacher: Teacher) -> Sampled:
    """Return the sample with what a teacher thinks of each negative and of its question's answers."""
    rows = sampled.rows
    questions = np.unique(rows["question_id"])
    own, _, place = pool.positives_of(questions)
    asked = [(index.questions[q], index.documents[d]) for q, d in zip(questions[place], own, strict=True)]
    given = teacher.probabilities([*asked, *zip(rows["question"], rows["candidate"], strict=True)])
    best = pd.Series(given[: len(asked)]).groupby(questions[place]).max()
    teacher_of_answer = best.reindex(rows["question_id"]).to_numpy()
    frame = rows.assign(teacher=given[len(asked) :], teacher_of_answer=teacher_of_answer)
    return Sampled(frame, sampled.questions, sampled.without)


def _lowest_answers(pool: Pool, questions: npt.NDArray[np.integer]) -> pd.DataFrame:
    """Return document and score of each question's lowest-scored answer, in the order of the questions."""
    own, scores, rows = pool.positives_of(questions)
    frame = pd.DataFrame({"row": rows, "document": own, "score": scores})
    return frame.sort_values(["row", "score"], kind="stable").drop_duplicates("row")


def rate(flags: pd.Series, questions: pd.Series) -> Interval:
    """Return the share of flagged negatives with its 95 % interval: a bootstrap over the questions, who share a fate.

    The mean of each question's share; questions without a negative do not count. Where no question or every question
    is flagged throughout, a bootstrap sees no doubt, and the interval is Clopper and Pearson's for so many questions.
    """
    shares = flags.astype(float).groupby(questions.to_numpy()).mean().to_numpy()
    if not len(shares):
        return Interval(float("nan"), 0.0, 1.0)
    if shares.min() == shares.max() and shares[0] in (0.0, 1.0):
        exact = stats.binomtest(int(shares.sum()), len(shares)).proportion_ci(0.95, method="exact")
        return Interval(float(shares[0]), float(exact.low), float(exact.high))
    if len(shares) == 1:
        return Interval(float(shares[0]), 0.0, 1.0)
    found = stratified_interval([shares])
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high))


def sections(sampled: Sampled, threshold: float, labels: Interval | None = None) -> list[Section]:
    """Return the margins, the estimated rates of false negatives, and the candidates that look most like one."""
    return [_margins(sampled.rows), _rates(sampled, threshold, labels), *_suspects(sampled)]


def _margins(rows: pd.DataFrame) -> Section:
    """Return a histogram whose bins share the middle 98 % of the margins; the outer two take in the rest."""
    margins = rows["margin"].to_numpy(np.float64)
    edges = (
        np.linspace(np.quantile(margins, 0.01), np.quantile(margins, 0.99), BINS + 1) if len(margins) else np.zeros(1)
    )
    counts, _ = np.histogram(np.clip(margins, edges[0], edges[-1]), edges) if len(margins) else (np.zeros(0, int), 0)
    widest = max(1, int(counts.max(initial=0)))
    cells = [
        (
            f"{low:+.3f} to {high:+.3f}",
            str(count),
            f"{count / max(1, len(margins)):.1%}",
            "█" * round(20 * count / widest),
        )
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    note = (
        "Score of the question's lowest-scored answer less that of the negative, under the miner: below 0, the miner "
        "prefers the negative. The first and last bin hold what lies beyond them too."
    )
    return Section("Margins", note, ("margin", "negatives", "share", ""), cells)


def _rates(sampled: Sampled, threshold: float, labels: Interval | None) -> Section:
    rows = sampled.rows
    found = [("the miner scores it above an answer", rate(rows["margin"] < 0, rows["question_id"]))]
    if sampled.asked:
        above = rows["teacher"] > rows["teacher_of_answer"]
        found += [
            ("the teacher scores it above every answer", rate(above, rows["question_id"])),
            (f"its probability is above {threshold:g}", rate(rows["teacher"] > threshold, rows["question_id"])),
        ]
    if labels is not None:
        found.append(("a person labelled it relevant", labels))
    note = (
        f"Share of the negatives of {sampled.questions} questions, {sampled.without} of which have none. Only labels "
        "estimate the rate of false negatives without bias; a teacher's verdict carries its own mistakes."
    )
    cells = [(what, f"{value.mean:.1%}", f"{value.low:.1%} to {value.high:.1%}") for what, value in found]
    return Section("False negatives", note, ("a negative counts where", "share", "95 % interval"), cells)


def _suspects(sampled: Sampled, most: int = 10) -> list[Section]:
    rows = sampled.rows
    if not sampled.asked:
        return []
    rows = rows.assign(by=rows["teacher"] - rows["teacher_of_answer"])
    rows = rows[rows["by"] > 0].sort_values("by", ascending=False, kind="stable").head(most)
    cells = [
        (str(row.question), str(row.answer)[:200], str(row.candidate)[:200], str(row.rank),
         f"{row.teacher:.3f}", f"{row.teacher_of_answer:.3f}")
        for row in rows.itertuples()
    ]  # fmt: skip
    header = ("question", "answer", "negative", "rank", "teacher", "teacher of the answer")
    return [
        Section("What the teacher prefers to the answer", "The most preferred first; texts are cut.", header, cells)
    ]


def closest(sampled: Sampled, most: int = 10) -> Section:
    """Return the negatives that the miner scores highest against their question's lowest-scored answer, texts cut."""
    rows = sampled.rows.sort_values("margin", kind="stable").head(most)
    above = int((sampled.rows["margin"] < 0).sum())
    note = (
        f"{above} of {len(sampled.rows)} negatives score above an answer; these {len(rows)} come closest to one or "
        "lie furthest above it. One that answers its question teaches the model wrong."
    )
    cells = [
        (short(row.question), short(row.answer), short(row.candidate), str(row.rank), f"{row.margin:+.3f}")
        for row in rows.itertuples()
    ]
    header = ("question", "answer", "negative", "rank", "margin")
    return Section("Suspicious negatives", note, header, cells)


def write_sheet(sampled: Sampled, size: int, seed: int, file: Path) -> int:
    """Write a CSV for a person to fill in, `size` negatives at random with an empty column `relevant`; return how many.

    The column takes 1 (the candidate answers the question) or 0; rows left empty are not counted.
    """
    rows = sampled.rows
    order = np.random.default_rng(seed).permutation(len(rows))[:size]
    chosen = rows.iloc[order][["question_id", *(name for name in SHEET if name in rows)]]
    chosen.insert(1, "relevant", "")
    file.parent.mkdir(parents=True, exist_ok=True)
    chosen.to_csv(file, index=False)
    return len(chosen)


def read_labels(file: Path) -> Interval:
    """Return the share of labelled candidates that a person called relevant, with its interval.

    Raises:
        DataError: the sheet is missing or broken, a label is none, or no row has one.
    """
    labels: list[float] = []
    questions: list[str] = []
    for number, row in read_rows(file):
        if "relevant" not in row or "question_id" not in row:
            raise DataError(f"{file}, row {number}: no column 'relevant' or 'question_id'; give a sheet of src.audit")
        given = str(row["relevant"] if row["relevant"] is not None else "").strip().lower()
        if not given:
            continue
        if given not in LABELS:
            raise DataError(f"{file}, row {number}: 'relevant' is {given!r}; 1, 0 or nothing is wanted")
        labels.append(LABELS[given])
        questions.append(str(row["question_id"]))
    if not labels:
        raise DataError(f"{file}: no row has a label in its column 'relevant'; write 1 or 0 there")
    return rate(pd.Series(labels), pd.Series(questions))


def duplicates(groups: Sequence[Sequence[int]], looked_at: int, documents: Sequence[str], most: int = 5) -> Section:
    """Return what groups of (nearly) equal documents there are among those looked at, the largest with two texts."""
    cells = [(str(len(group)), documents[group[0]][:200], documents[group[-1]][:200]) for group in groups[:most]]
    note = (
        f"{sum(map(len, groups))} of {looked_at} documents stand in {len(groups)} groups of equal or nearly equal "
        "documents; the largest, with their first and last text, cut."
    )
    return Section("Duplicate documents", note, ("documents", "first", "last"), cells)
