"""What a pool holds and what a policy finds in it, in a few numbers."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crossrank.analysis.sections import Section
from crossrank.data.mining import Pool
from crossrank.data.policy import Policy
from crossrank.data.search import NO_CANDIDATE

QUESTIONS_PER_BLOCK = 8192
FOUND_AT = (1, 10, 100)


def pool_section(pool: Pool, policy: Policy) -> Section:
    """Return how often the answers are found, and how many negatives the policy takes (of epoch 0)."""
    ranks, taken, twins = [], [], 0
    for block in _blocks(pool):
        ranks.append(best_ranks(pool, block))
        chosen = policy.select(pool, block)
        taken.append(((chosen.documents != NO_CANDIDATE) & ~chosen.positive).sum(axis=1))
        twins += int((np.asarray(pool.twins[block]) != 0).sum()) if pool.twins is not None else 0
    rank, count = np.concatenate(ranks), np.concatenate(taken)
    depth = pool.candidates.shape[1]
    rows = [
        ("questions", f"{len(pool):,}"),
        ("candidates of each", str(depth)),
        *((f"an answer among the first {k}", f"{(rank <= k).mean():.1%}") for k in FOUND_AT if k <= depth),
        ("negatives taken", f"{count.sum():,}"),
        ("of each question, mean", f"{count.mean():.2f} of {policy.negatives} wanted"),
        ("questions without a negative", f"{(count == 0).sum():,} ({(count == 0).mean():.1%})"),
    ]
    if pool.twins is not None:
        rows.append(("candidates much like an answer", f"{twins:,}"))
    note = "Questions without a negative train on their answers alone."
    return Section("The pool", note, ("what", "how many"), rows)


def best_ranks(pool: Pool, questions: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the rank, from 1, at which each question's best-ranked answer is found; a huge number where none is."""
    own, _, rows = pool.positives_of(questions)
    keys = (np.arange(len(questions), dtype=np.int64)[:, None] << 32) + pool.candidates[questions]
    found = np.isin(keys, (rows << 32) + own)
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, np.iinfo(np.int64).max)


def _blocks(pool: Pool) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(pool), QUESTIONS_PER_BLOCK):
        yield np.arange(start, min(start + QUESTIONS_PER_BLOCK, len(pool)))
