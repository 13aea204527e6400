"""What a sweep teaches besides its best job: which choices matter, and how much the seed does."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from crossrank.analysis.alignment import align
from crossrank.analysis.sweeps import SweepFolder, told
from crossrank.analysis.systems import System, stored_rows
from crossrank.errors import DataError
from crossrank.evaluation.significance import SeedVariance, seed_variance

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ENOUGH_JOBS = 4
SEED = "seed"
LOGARITHMIC = 10  # the largest over the smallest of a choice's numbers from which on only their ratios count


class Importance(NamedTuple):
    """The share of the variance that each choice explains, the largest first; or why that is not known."""

    shares: dict[str, float]
    missing: str = ""


@dataclass(frozen=True)
class SeedGroup:
    """Finished jobs that differ in nothing but their seeds."""

    choices: dict[str, str]  # all others
    jobs: list[str]
    values: list[float]  # of the monitored metric, each at its job's best step
    variance: SeedVariance | None  # None with one job, or where their queries are not the same
    missing: str = ""  # why it is not known

    @property
    def name(self) -> str:
        """What tells it from other groups."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.choices.items()) or "all jobs"

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return sum(self.values) / len(self.values)


def is_seed(key: str) -> bool:
    """Return whether a key of the config, with dots, is a seed."""
    return key.rpartition(".")[2] == SEED


def done(sweep: SweepFolder) -> pd.DataFrame:
    """Return the finished jobs that have a value."""
    return sweep.jobs[(sweep.jobs["state"] == "finished") & sweep.jobs["value"].notna()]


def importance(sweep: SweepFolder) -> Importance:
    """Return how much of the variance of the monitored metric each choice explains, over the finished jobs.

    Source: optuna.importance, whose default is fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014).
    """
    jobs = done(sweep)
    choices = [key for key in sweep.choices if jobs[key].map(repr).nunique() > 1]
    if len(jobs) < ENOUGH_JOBS:
        return Importance({}, f"Importance needs at least {ENOUGH_JOBS} finished jobs; there are {len(jobs)}.")
    if jobs["value"].nunique() < 2 or not choices:
        return Importance({}, "Importance is left out: all finished jobs reached the same value.")
    try:
        import optuna
    except ImportError:
        return Importance({}, "Importance is left out: optuna is missing; install it with pip install -e '.[search]'.")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return Importance(_shares(jobs, choices))
    finally:
        optuna.logging.set_verbosity(level)


def _shares(jobs: pd.DataFrame, choices: Sequence[str]) -> dict[str, float]:
    import optuna

    scales = {key: _scale(key, jobs[key]) for key in choices}
    study = optuna.create_study(direction="maximize")
    for _, job in jobs.iterrows():
        settings = {key: _setting(job[key], scales[key]) for key in choices}
        trial = optuna.trial.create_trial(value=float(job["value"]), params=settings, distributions=scales)
        study.add_trial(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's, of what is experimental in it
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in sorted(found.items(), key=lambda pair: -pair[1])}


def _scale(key: str, values: pd.Series) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = as_numbers(values)
    if numbers is None or is_seed(key):
        return CategoricalDistribution(list(dict.fromkeys(map(repr, values))))
    low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=low > 0 and high >= LOGARITHMIC * low)


def _setting(value: Any, scale: "BaseDistribution") -> Any:
    return repr(value) if hasattr(scale, "choices") else float(value)


def as_numbers(values: pd.Series) -> list[float] | None:
    """Return a choice's values as numbers, None where any of them is none."""
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    if all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in plain):
        return [float(value) for value in plain]
    return None


def seed_groups(sweep: SweepFolder) -> list[SeedGroup]:
    """Return the finished jobs by all choices but the seed, the best mean first; none where no seed was chosen."""
    if not any(is_seed(key) for key in sweep.choices):
        return []
    return sorted(_groups(sweep), key=lambda group: -group.mean)


def _groups(sweep: SweepFolder) -> Iterator[SeedGroup]:
    jobs = done(sweep)
    others = [key for key in sweep.choices if not is_seed(key)]
    same = jobs[others].map(repr).agg("|".join, axis=1) if others else pd.Series("", jobs.index)
    for _, rows in jobs.groupby(same, sort=False):
        choices = {key: told(rows[key].iloc[0]) for key in others}
        names = [str(job) for job in rows["job"]]
        variance, missing = _variance(sweep, names)
        yield SeedGroup(choices, names, [float(value) for value in rows["value"]], variance, missing)


def _variance(sweep: SweepFolder, jobs: Sequence[str]) -> tuple[SeedVariance | None, str]:
    if len(jobs) < 2:
        return None, "one seed says nothing of another"
    _, evaluator, dataset, metric = str(sweep.monitor).split("/")
    try:
        tables = [_rows(sweep, job, evaluator, dataset) for job in jobs]
        aligned = align([System("jobs", tuple(tables))], [metric])
        return seed_variance([values[:, :, 0] for values in aligned.values[0]]), ""
    except ValueError as error:  # other queries in another job, or too few
        return None, str(error)


def _rows(sweep: SweepFolder, job: str, evaluator: str, dataset: str) -> pd.DataFrame:
    """Return what the monitored metric is of, query by query, at a job's best step."""
    rows = stored_rows(sweep.path / job)
    if rows is None:
        raise DataError(f"{job}: no evaluation was kept")
    mine = rows[rows["evaluator"] == evaluator]
    return mine if dataset == "mean" else mine[mine["dataset"] == dataset]
