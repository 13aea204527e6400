"""A sweep's folder as tables: one job, one row; what was chosen, what came of it."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from crossrank.analysis.runs import RunFolder, stored
from crossrank.analysis.sections import Section
from crossrank.errors import DataError
from crossrank.identity import flat, identity
from crossrank.resume import CONFIG, FAILURE, ORIGIN, RESULT, read_config

JOB = "job.json"
FACTS = ["job", "state", "error", "value", "best_step", "seconds"]
OF_THE_SWEEP = (
    "sweep=",
    "hydra/",
    "hydra.",
    "retry_failed=",
    "cache_dir=",
    "run_dir=",
    "logger=",
    "logger.",
)  # not of a job
SHOWN = 80  # characters of an error in a table


@dataclass(frozen=True)
class SweepFolder:
    """`runs/<name>/<sweep>_sweep`: a folder a job, called after its config, each with `job.json` and `origin.json`."""

    path: Path

    def __post_init__(self) -> None:
        if not self._folders:
            raise DataError(
                f"{self.path}: no job of a sweep lies there; give a sweep's folder, such as runs/quickstart/lr_sweep"
            )

    @cached_property
    def _folders(self) -> list[Path]:
        return sorted(file.parent for file in self.path.glob(f"*/{JOB}"))

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """One row a job, the best first: job, state, error, value, best_step, seconds, then one column a choice.

        `state` is finished, pruned, failed or unfinished; `value` that of the monitored metric at the best step.
        """
        table = pd.DataFrame([_facts(folder) for folder in self._folders], columns=FACTS)
        for key in self.choices:
            table[key] = [told.get(key) for told in self._told]
        return table.sort_values("value", ascending=False, na_position="last", kind="stable", ignore_index=True)

    @cached_property
    def _told(self) -> list[dict[str, Any]]:
        """What each job's words say, and what its config says besides."""
        return [_config(folder) | words for folder, words in zip(self._folders, self._words, strict=True)]

    @cached_property
    def _words(self) -> list[dict[str, Any]]:
        return [_words(folder) for folder in self._folders]

    @cached_property
    def choices(self) -> list[str]:
        """The keys, with dots, or groups of the config in which the jobs differ, of those that their words name."""
        named = dict.fromkeys(key for words in self._words for key in words)
        keys = named or dict.fromkeys(key for told in self._told for key in told if not key.startswith("logger"))
        return [key for key in keys if len({repr(told[key]) for told in self._told if key in told}) > 1]

    @cached_property
    def monitor(self) -> str | None:
        """The key of the metric that chose each job's best step, where any job has finished."""
        return next((found for f in self._folders if (found := stored(f / RESULT).get("monitor"))), None)

    @cached_property
    def runs(self) -> dict[str, RunFolder]:
        """The finished jobs' folders, the best first."""
        done = self.jobs[self.jobs["state"].isin(("finished", "pruned"))]
        return {job: RunFolder(self.path / job) for job in done["job"]}

    @property
    def best(self) -> str | None:
        """The finished job that has the highest value, if any has one."""
        done = self.jobs[(self.jobs["state"] == "finished") & self.jobs["value"].notna()]
        return None if done.empty else str(done["job"].iloc[0])

    def override_line(self, job: str) -> str:
        """Return the words that train a job's config by itself, to paste after `python -m src.train`.

        Raises:
            DataError: there is no such job.
        """
        if job not in {folder.name for folder in self._folders}:
            raise DataError(f"{self.path}: no job {job!r}; there are: {', '.join(f.name for f in self._folders)}")
        words = stored(self.path / job / ORIGIN).get("overrides", [])
        return shlex.join(word for word in words if not word.lstrip("+~").startswith(OF_THE_SWEEP))

    def failed(self, since: float = 0.0) -> dict[str, str]:
        """Return the jobs that failed, with their errors, of those that were asked for since a time (UNIX seconds)."""
        asked = {f.name for f in self._folders if stored(f / JOB).get("asked", 0.0) >= since}
        rows = self.jobs[(self.jobs["state"] == "failed") & self.jobs["job"].isin(asked)]
        return dict(zip(rows["job"], rows["error"], strict=True))

    def section(self) -> Section:
        """Return the jobs as a table."""
        header = ["job", "state", self.monitor or "value", "best step", "minutes", *self.choices]
        cells = [
            [row["job"], row["state"] if not row["error"] else f"{row['state']}: {row['error'][:SHOWN]}",
             _number(row["value"], ".4f"), _number(row["best_step"], ".0f"), _number(row["seconds"] / 60, ".1f"),
             *(short(row[key]) for key in self.choices)]
            for row in self.jobs.to_dict("records")
        ]  # fmt: skip
        return Section(f"Sweep {self.path}", "The best first.", header, cells)


def _facts(folder: Path) -> tuple[Any, ...]:
    result, failure = stored(folder / RESULT), stored(folder / FAILURE)
    if result:
        state = "pruned" if result.get("pruned_at") is not None else "finished"
        best = result.get("best_value")
        return folder.name, state, "", float("nan") if best is None else best, result["best_step"], result["seconds"]
    nothing = (float("nan"),) * 3
    return (
        folder.name,
        "failed" if failure else "unfinished",
        " ".join(str(failure.get("error", "")).split()),
        *nothing,
    )


def _config(folder: Path) -> dict[str, Any]:
    """Return what a job trains, by keys with dots; nothing where its config was refused."""
    return flat(identity(read_config(folder))) if (folder / CONFIG).is_file() else {}


def _words(folder: Path) -> dict[str, Any]:
    """Return what the words of a job's command choose, by keys with dots and by groups."""
    words = [word.lstrip("+") for word in stored(folder / ORIGIN).get("overrides", [])]
    pairs = [word.partition("=") for word in words if "=" in word and not word.startswith(OF_THE_SWEEP)]
    values = [flat(OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))) for _, _, value in pairs]
    return {key: value["value"] for (key, _, _), value in zip(pairs, values, strict=True) if "value" in value}


def told(value: Any) -> str:
    """Return a choice as a config says it; what a table of numbers holds as NaN was null."""
    return "null" if value is None or value != value else str(value)


def short(value: Any) -> str:
    """Return a choice for a table, as `told`, but a drawn number with its first 4 digits."""
    return f"{value:.4g}" if isinstance(value, float) and value == value else told(value)


def _number(value: float, digits: str) -> str:
    return "-" if pd.isna(value) else f"{value:{digits}}"
