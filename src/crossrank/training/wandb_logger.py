"""A run in Weights & Biases: what was asked for, what was logged, what came of it, and what it is made of."""

import json
import logging
import os
import re
import socket
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from crossrank.analysis.published import ROWS, best_step, query_table, score_curves, values_at
from crossrank.analysis.runs import RunFolder
from crossrank.data.cache import replace_text
from crossrank.data.lineage import FOLLOWS, Lineage
from crossrank.data.lineage_record import RECORD, LineageRecord
from crossrank.identity import flat
from crossrank.training.tracking import sweep_of, told

log = logging.getLogger(__name__)

STEP = "trainer/global_step"  # Lightning's name of the optimizer step
INPUTS = {"texts": "split", "given": "given", "pool": "pool", "rows": "rows"}  # kind of data set: its step of a lineage
PAPERS = (  # not uncommitted.diff: code is nobody's to upload unasked
    "report.md", "report.html", "metrics.parquet", "config.yaml", "provenance.json", "requirements.txt", "energy.json",
    RECORD, "result.json",
)  # fmt: skip


class WandbTracker(WandbLogger):
    """Records a run in W&B: online where a key and the network are there, offline elsewhere.

    It never asks and never waits long: where it is offline, one line says why, and how to upload the run later.
    WANDB_MODE, where set, decides. A run that goes on is one run there too; its id lies in `<run_dir>/wandb_run_id`.
    With no `group`, the jobs of a sweep are grouped by the sweep's folder.

    The config is logged resolved and flat, with dotted keys; metrics are drawn against the optimizer step. The summary
    holds the best step so far, `best/step`, and what was evaluated there, `best/<evaluator>/<dataset>/<metric>`. Texts,
    pool and rows of the training are artifacts that the run uses, named by their ids; the export and the report are
    artifacts that it gives.
    """

    def __init__(
        self,
        run_dir: str,
        name: str,
        project: str = "crossrank",
        entity: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        self.run_dir, self._monitor = Path(run_dir), ""
        kept = self.run_dir / "wandb_run_id"
        known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
        sweep = sweep_of(self.run_dir)
        run = _opened(
            run_dir,
            name=f"{name}/{self.run_dir.name}" if sweep else name,  # the jobs of a sweep must be told apart
            project=project,
            entity=entity,
            group=group or sweep,
            job_type=job_type,
            tags=[tag[:64] for tag in tags or () if tag],  # W&B takes no longer ones
            notes=notes,
            id=known,
            resume="allow" if known else None,
        )
        replace_text(kept, f"{run.id}\n")
        super().__init__(name=name, project=project, save_dir=run_dir, experiment=run)
        run.define_metric(STEP)
        for kind in ("train", "eval", "health"):
            run.define_metric(f"{kind}/*", step_metric=STEP, step_sync=True)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:
        """Log the config, and what the training data is made of as far as the run's folder says it."""
        settings = dict(vars(params) if isinstance(params, Namespace) else params)
        self._monitor = str(settings.get("monitor", ""))
        self.experiment.config.update(flat(settings), allow_val_change=True)
        if (self.run_dir / RECORD).is_file():
            for artifact in input_artifacts(LineageRecord.read(self.run_dir).lineage.published()):
                # as `use_artifact` does, which refuses to offline and waits for the server online
                self.experiment._log_artifact(artifact, is_user_created=True, use_after_commit=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics and, where the monitored one is among them, what is best so far."""
        super().log_metrics(metrics, step)
        if self._monitor in metrics:
            run = RunFolder(self.run_dir)  # whose record holds these already, and those before a restart
            best = best_step(run, self._monitor)
            if best is not None:
                self._summarise(run, best)

    def publish(self, run_dir: Path) -> None:
        """Log what a finished run left: tables of questions, curves of the scores, the report and the export."""
        run = RunFolder(run_dir)
        result = run.result
        if "pruned_at" in result:  # by a search
            self.experiment.summary["pruned_at"] = result["pruned_at"]
        if "monitor" in result:
            self._summarise(run, result["best_step"])
            self._show(run, result["best_step"], result["monitor"].split("/")[1])
        made = LineageRecord.read(run_dir)
        facts: dict[str, Any] = {key: value for key, value in result.items() if key != "export"}
        facts |= {"made_of": list(_inputs(made.lineage))}
        facts |= {"lineage": made.lineage.ids, "files": made.files}
        model = wandb.Artifact(_word(result["name"]), "model", f"The export of {run_dir}", facts)
        _add(model, run_dir / result["export"], (run_dir / result["export"]).rglob("*"))
        self.experiment.log_artifact(model, aliases=["latest", f"step-{result['best_step']}"])
        report = wandb.Artifact(_word(f"{result['name']}-report"), "report", f"What came of {run_dir}", facts)
        _add(report, run_dir, (run_dir / name for name in PAPERS))
        self.experiment.log_artifact(report)

    def _summarise(self, run: RunFolder, step: int) -> None:
        best = {f"best/{key.removeprefix('eval/')}": value for key, value in values_at(run, step).items()}
        self.experiment.summary.update({"best/step": step} | best)

    def _show(self, run: RunFolder, step: int, evaluator: str) -> None:
        shown: dict[str, Any] = {}
        for name, at in (("before", 0), ("best", step)):
            table = query_table(run, at, ROWS)
            if not table.empty:
                shown[f"queries/{name}"] = wandb.Table(dataframe=table.assign(step=at))
            if len(table) == ROWS:
                log.info("W&B: the table of step %d holds %s of its questions; evaluations/ holds all", at, f"{ROWS:,}")
        for kind, curves in zip(("scores", "reliability"), score_curves(run, step, evaluator), strict=False):
            xs, ys = zip(*curves.lines.values(), strict=True)
            shown[f"charts/{kind}"] = wandb.plot.line_series(xs, ys, list(curves.lines), curves.title, curves.axis)
        if (run.path / "report.html").is_file():
            shown["report"] = wandb.Html(str(run.path / "report.html"))
        self.experiment.log(shown)


def input_artifacts(made: Lineage) -> list[wandb.Artifact]:
    """Return what a training set is made of as data sets that are named by their ids.

    What each is made of, its own step last, is its metadata and its only file: texts stay where they are.
    """
    found = []
    for name, step in _inputs(made).items():
        steps = {above: {"id": made.ids[above], **made.steps[above].description} for above in _above(step, made)}
        artifact = wandb.Artifact(name, "dataset", metadata=steps)
        with artifact.new_file(RECORD, encoding="utf-8") as file:
            json.dump(steps, file, indent=2)
        found.append(artifact)
    return found


def _inputs(made: Lineage) -> dict[str, str]:
    """Return the steps that are data sets, by the names of their artifacts."""
    found = {kind: step for kind, step in INPUTS.items() if step in made.steps}
    if "rows" in found:  # which hold the given ones
        found.pop("given", None)
    return {f"{kind}-{made.ids[step]}": step for kind, step in found.items()}


def _add(artifact: wandb.Artifact, root: Path, files: Iterable[Path]) -> None:
    """Add files by their paths below a folder; they stay where they are, so that W&B need not copy them first."""
    for file in sorted(file for file in files if file.is_file()):
        artifact.add_file(str(file), file.relative_to(root).as_posix(), policy="immutable", skip_cache=True)


def _above(step: str, made: Lineage) -> list[str]:
    """Return a step and all that it follows from, in the order in which a change spreads."""
    names = {step}.union(*(_above(name, made) for name in FOLLOWS[step]))
    return [name for name in FOLLOWS if name in names and name in made.steps]


def finish_wandb(exit_code: int) -> None:
    """Close the W&B run, if one is open, so that the next job of a multirun gets its own; 0 says that it succeeded."""
    if wandb.run is None:
        return
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:  # the training has ended, well or badly, whatever the network does now
        log.warning("W&B: the run could not be closed (%s); upload it with: wandb sync", told(error))


def _opened(run_dir: str, **run: Any) -> wandb.Run:
    """Start a run, online if that can be, else offline."""
    # a network that went down must not hold a finished training for ever
    settings = wandb.Settings(init_timeout=30, finish_timeout=300, silent=True, console="off")
    mode, why = _mode()
    if mode == "online":
        try:
            return wandb.init(dir=run_dir, mode="online", settings=settings, **run)
        except Exception as error:  # of a key that is not known, a server that is down, an answer that makes no sense
            mode, why = "offline", f"{type(error).__name__}: {told(error)}"
            wandb.teardown()  # or else the run's id counts as taken
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # its telemetry would go on complaining
    if mode == "offline":
        log.info("W&B: offline (%s); upload later with: wandb sync %s/wandb/offline-run-*", why, run_dir)
    return wandb.init(dir=run_dir, mode=mode, settings=settings, **run)  # type: ignore[arg-type]


def _mode() -> tuple[str, str]:
    """Return W&B's mode and, where that is offline, why: without a key W&B would ask for one, or end the program."""
    settings = wandb.setup().settings  # wandb.Settings() alone does not read WANDB_BASE_URL or the settings files
    wanted = os.environ.get("WANDB_MODE") or settings.mode
    if wanted in ("offline", "dryrun"):
        return "offline", "as W&B is set" if "WANDB_MODE" not in os.environ else f"WANDB_MODE={wanted}"
    if wanted not in ("online", "run"):
        return wanted, ""
    if not (settings.api_key or wandb.api.api_key):
        return "offline", "no key: neither WANDB_API_KEY nor wandb login gave one"
    url = urlsplit(settings.base_url)
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=3):
            return "online", ""
    except OSError as error:
        return "offline", f"no network: {told(error)}"


def _word(name: str) -> str:
    """Return a name with only what an artifact's may have."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]
