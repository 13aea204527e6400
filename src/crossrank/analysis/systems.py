"""What reranking systems found, query by query: runs, folders of evaluations, TREC runs, a first stage."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from crossrank.analysis.runs import RunFolder, settings
from crossrank.errors import DataError
from crossrank.evaluation import metric_names
from crossrank.evaluation.formats import TREC_SUFFIXES, read_qrels, read_ranking
from crossrank.evaluation.metrics import trec_metrics

log = logging.getLogger(__name__)

FIRST_STAGE = "first_stage"  # stands for the first stage of the first system that has one
KEYS = ["evaluator", "dataset", "query_id", "metric"]
COLUMNS = [*KEYS, "value", "base_value"]
STEP_FILE = re.compile(r"step=(\d+)-(.+)\.parquet")
MODEL_FILES = ("config.json", "modules.json")
ENDINGS = (".gz", ".trec", ".txt", ".run", ".qrels", ".jsonl", ".csv", ".tsv", ".parquet")

Evaluate = Callable[[str], DataFrame]  # a model's folder or id in, the rows of an Evaluation out


@dataclass(frozen=True)
class Judgements:
    """How TREC runs are judged: by which file, down to which rank, from which grade on a document is relevant."""

    qrels: Path | None = None
    at_k: int = 10
    relevant_from: int = 1


@dataclass(frozen=True)
class System:
    """A system and the values it reached: one table of COLUMNS for each of its trainings."""

    name: str
    trainings: tuple[DataFrame, ...]


def load_systems(
    words: Sequence[str],
    names: Sequence[str] | None = None,
    judgements: Judgements | None = None,
    evaluate: Evaluate | None = None,
) -> list[System]:
    """Load each system that a word names.

    A word is a run's folder (its best step, or the last one where the run has not finished), a folder of
    `step=*.parquet` files or one that has them in `evaluations/` (the last step), a folder of such runs or several
    words joined by commas (one system, trained with several seeds), a TREC run, a model (if `evaluate` is given), or
    `first_stage`. Names are the parts of the paths that differ, unless given.

    Raises:
        DataError: there are fewer than two words, not as many names as words, or a word names nothing that holds
            values, or whose values are broken.
    """
    if len(words) < 2:
        raise DataError(f"a comparison needs at least two systems, got {list(words)}; name a second, or {FIRST_STAGE}")
    if names is not None and (len(names) != len(words) or len(set(names)) != len(names)):
        raise DataError(f"names must be {len(words)} different ones, one a system, got {list(names)}")
    for word in words:
        _warn_of_configs(word)
    loaded = {
        word: tuple(_load(part, judgements or Judgements(), evaluate) for part in trainings(word))
        for word in words
        if word != FIRST_STAGE
    }
    if FIRST_STAGE in words:
        loaded[FIRST_STAGE] = (_first_stage(list(loaded.values())),)
    return [System(name, loaded[word]) for name, word in zip(names or short_names(words), words, strict=True)]


def trainings(word: str) -> list[str]:
    """Return the members of a system: parts between commas, and the runs in a folder that is none itself."""
    parts = [word] if os.path.exists(word) else [part.strip() for part in word.split(",") if part.strip()]  # noqa: PTH110
    return [member for part in parts or [word] for member in (_runs_within(Path(part)) or [part])]


def short_names(words: Sequence[str]) -> list[str]:
    """Return a name for each word: its path without the parts at both ends that all paths share."""
    paths = {word: _path(word).parts for word in words if word != FIRST_STAGE}
    lead, tail = _shared(list(paths.values())), _shared([parts[::-1] for parts in paths.values()])
    short = {word: "/".join(parts[lead : len(parts) - tail] or parts[-1:]) for word, parts in paths.items()}
    if len(set(short.values())) < len(short) or FIRST_STAGE in short.values():
        short = {word: word for word in paths}
    names = [short.get(word, word) for word in words]
    return [name if names.index(name) == i else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _path(word: str) -> Path:
    """Return the path that a name is made of, of several words the folder that they share."""
    members = [Path(member) for member in trainings(word)] if "," in word else [Path(word)]
    common = members[0].parts[: _shared([member.parts for member in members])]
    return Path(*common) if common else Path(word)


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many leading parts all paths share."""
    differ = (i for i, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1)
    return next(differ, min(map(len, paths), default=0))


def _runs_within(folder: Path) -> list[str]:
    """Return the runs in a folder, in the order of their numbers or times, if it holds no values itself."""
    if not folder.is_dir() or (folder / "metrics.jsonl").is_file() or _steps(folder):
        return []
    runs = [file.parent for file in folder.glob("*/metrics.jsonl")]
    return [str(run) for run in sorted(runs, key=lambda run: (len(run.name), run.name))]


def _warn_of_configs(word: str) -> None:
    """Warn where the trainings of one system are no repetitions of each other, such as a sweep of learning rates."""
    configs = (Path(member) / "config.yaml" for member in trainings(word))
    lines = [settings(config) for config in configs if config.is_file()]
    differ = {line for one in lines for line in one if not all(line in other for other in lines)}
    keys = {line.partition(":")[0].strip(" -") for line in differ}
    if other := sorted(keys - {"seed"}):
        log.warning("%s: its %d trainings differ in more than the seed: %s", word, len(lines), ", ".join(other))


def stored_rows(folder: Path) -> DataFrame | None:
    """Return the per-query rows of a run's best step or of an evaluation; None where the folder holds none.

    Raises:
        DataError: a file is damaged, or the values are none that can be compared.
    """
    steps = _steps(folder)
    return _checked(str(folder), _stored(folder, steps)) if steps else None


def _load(word: str, judgements: Judgements, evaluate: Evaluate | None) -> DataFrame:
    path = Path(word)
    if path.is_file():
        return _checked(word, _trec(path, judgements))
    if path.is_dir() and (rows := stored_rows(path)) is not None:
        return rows
    if (path / "metrics.jsonl").is_file():
        raise DataError(f"{word}: no evaluation was written; the run has none or stopped before its first")
    advice = (
        "say what to evaluate it on with evaluators=..., or evaluate it first with python -m src.evaluate "
        f"reranker={word} evaluators=... and compare the folder"
    )
    if path.is_dir() and not any((path / name).is_file() for name in MODEL_FILES):
        raise DataError(f"{word}: a run, a folder of runs, of evaluations (step=*.parquet) or a model is wanted here")
    if evaluate is not None:
        return _checked(word, evaluate(word))
    if path.is_dir() or word.startswith("pypi:"):
        raise DataError(f"{word} is a model: {advice} that this writes")
    raise DataError(f"{word}: no such file or folder; if it is a model of the hub, {advice} that this writes")


def _steps(folder: Path) -> dict[int, dict[str, Path]]:
    """Return the files of each step by evaluator, from the folder itself or from its `evaluations`."""
    found: dict[int, dict[str, Path]] = {}
    files = sorted(folder.glob("step=*.parquet")) or sorted((folder / "evaluations").glob("step=*.parquet"))
    for file, name in ((file, STEP_FILE.fullmatch(file.name)) for file in files):
        if name:
            found.setdefault(int(name[1]), {})[name[2]] = file
    return found


def _stored(folder: Path, steps: dict[int, dict[str, Path]]) -> DataFrame:
    step = _step(folder, steps)
    if step not in steps:
        raise DataError(f"{folder}: its best step is {step}, of which there is no evaluation; there are: {[*steps]}")
    tables = []
    for evaluator, file in steps[step].items():
        try:
            tables.append(pd.read_parquet(file).assign(evaluator=evaluator))
        except (OSError, ValueError) as error:  # pyarrow raises both for a damaged file
            raise DataError(f"{file}: not a readable parquet file ({' '.join(str(error).split())})") from error
    return pd.concat(tables, ignore_index=True)


def _step(folder: Path, steps: dict[int, dict[str, Path]]) -> int:
    is_run = (folder / "metrics.jsonl").is_file()  # an evaluation outside training has a result.json of its own
    if is_run and (folder / "result.json").is_file():
        try:
            return int(RunFolder(folder).result["best_step"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / 'result.json'}: gives no best_step ({error})") from error
    evaluators = {name for files in steps.values() for name in files}
    whole = [step for step, files in steps.items() if set(files) == evaluators]
    step = max(whole or steps)
    if is_run:
        log.warning("%s: the run has not finished; its last evaluated step, %d, is taken", folder, step)
    elif len(steps) > 1:
        log.warning("%s: holds the steps %s; the last, %d, is taken", folder, sorted(steps), step)
    return step


def _trec(file: Path, judgements: Judgements) -> DataFrame:
    """Judge a run on the queries of the qrels; a query that it lacks has 0."""
    if judgements.qrels is None:
        raise DataError(f"{file}: a TREC run ({', '.join(TREC_SUFFIXES)}) needs judgements; give them as qrels=FILE")
    qrels, ranked = read_qrels(judgements.qrels, None, None), read_ranking(file, None, None)
    if not qrels.keys() & ranked.keys():
        raise DataError(f"{file} and {judgements.qrels}: no query is in both")
    if lacking := [query for query in qrels if query not in ranked]:
        log.warning("%s: lacks %d of %d judged queries, which count 0", file, len(lacking), len(qrels))
    run = {query: {d: float(len(ids) - i) for i, d in enumerate(ids)} for query, ids in ranked.items()}
    found = trec_metrics(qrels, run, judgements.at_k, judgements.relevant_from)
    dataset = judgements.qrels.name
    while dataset.endswith(ENDINGS) and Path(dataset).stem != dataset:
        dataset = Path(dataset).stem
    parts = [
        DataFrame({"evaluator": "", "dataset": dataset, "query_id": list(qrels), "metric": name, "value": values})
        for name, values in zip(metric_names(judgements.at_k, "trec"), found[:3], strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _checked(word: str, rows: DataFrame) -> DataFrame:
    if lacking := [name for name in COLUMNS[1:5] if name not in rows]:
        raise DataError(f"{word}: the evaluation lacks the columns {lacking}; it has: {', '.join(map(str, rows))}")
    if rows.empty:
        raise DataError(f"{word}: the evaluation holds no query")
    named = rows if "evaluator" in rows else rows.assign(evaluator="")
    table = named.reindex(columns=COLUMNS).astype(dict.fromkeys(KEYS, str)).reset_index(drop=True)
    for name in ("value", "base_value"):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    if not np.isfinite(table["value"]).all():
        raise DataError(f"{word}: {int((~np.isfinite(table['value'])).sum())} of {len(table)} values are not finite")
    if (twice := table[table.duplicated(KEYS)]).size:
        _, dataset, query, metric = twice.iloc[0][KEYS]
        raise DataError(f"{word}: {metric} of the query {query!r} of {dataset} stands there more than once")
    return table


def _first_stage(loaded: list[tuple[DataFrame, ...]]) -> DataFrame:
    for table in (tables[0] for tables in loaded):
        if not (ranked := table.dropna(subset=["base_value"])).empty:
            return ranked.assign(value=ranked["base_value"])
    raise DataError(f"{FIRST_STAGE}: no other system has values of a first stage; name a run or an evaluation")
