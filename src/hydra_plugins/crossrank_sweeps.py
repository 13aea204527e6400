"""What Hydra does not know of sweeps: how one ends, and a search that learns from the jobs so far.

Hydra imports this file whenever a program starts, so what is heavy is imported where it is needed.
"""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


class SweepEnd(Callback):
    """Shows the jobs when a sweep ends, writes its report, names what failed and leaves with 1 if anything did."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the time: of jobs of an earlier command in the same folder nothing is said."""
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show and write what came of it.

        Raises:
            SystemExit: a job failed.
        """
        from crossrank.analysis.closing import close
        from crossrank.analysis.sweeps import JOB, SweepFolder
        from crossrank.faults import left_behind
        from crossrank.reports import write_sweep_report

        folder = Path(config.hydra.sweep.dir)
        if not any(folder.glob(f"*/{JOB}")):  # of another program, which keeps none
            return
        sweep = SweepFolder(folder)
        sweep.jobs.to_csv(sweep.path / "jobs.csv", index=False)
        failed = sweep.failed(self._started)
        best = None if sweep.best is None else f"python -m src.train {sweep.override_line(sweep.best)}"
        words = [*([] if best is None else [f"best   {best}"]), f"jobs   {sweep.path}/jobs.csv"]
        if page := left_behind(lambda: write_sweep_report(sweep), f"python -m src.report {sweep.path}"):
            words.append(f"report {page}")
        words += [f"failed {sweep.path / job}: {error or 'see its log'}" for job, error in failed.items()]
        if failed:
            words.append("run them again with the same command and retry_failed=true; what has finished is kept")
        facts = {"sweep": sweep.path, "best": sweep.best, "failed": failed, "jobs": sweep.jobs.to_dict("records")}
        close([sweep.section().as_table()], words, facts)
        if failed:
            sys.exit(1)


class TpeSweeper(Sweeper):
    """Searches for the settings with the highest monitored metric, by Optuna's tree-structured Parzen estimator.

    `params` maps keys of the config to Hydra's sweeps, as the command line does: `choice(a,b)`, `range(1,9)`,
    `interval(0,0.2)`, `tag(log,interval(1e-5,1e-3))`; each of `trials` jobs gets one value of each. `at_once` jobs are
    handed to the launcher together. The study lies in the sweep's folder: the same command goes on with it. It is an
    SQLite file or, with `storage` journal, a plain one, which file systems without locks for SQLite can hold as well.
    """

    def __init__(
        self, params: Mapping[str, str], trials: int, at_once: int = 1, seed: int = 12, storage: str = "sqlite"
    ) -> None:
        if trials < 1 or at_once < 1:
            raise ValueError(f"trials and at_once count jobs and must be at least 1, got {trials} and {at_once}")
        self.params, self.trials, self.at_once, self.seed, self.storage = params or {}, trials, at_once, seed, storage

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self.config, self.context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Ask for settings, have the launcher run them, tell what came of it; until all trials are done."""
        from crossrank.training.study import open_study, unfinished

        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        last = {override.key_or_group: override for override in given}  # the command line wins
        fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
        space = {key: _distribution(override) for key, override in last.items() if override.is_sweep_override()}
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = open_study(folder, self.storage, self.seed)
        begun = [trial.number for trial in unfinished(study)]  # when an earlier command was killed
        while begun or len(study.trials) < self.trials:
            room = min(self.at_once, max(len(begun), self.trials - len(study.trials)))
            numbers = begun[:room] or [study.ask(space).number for _ in range(room)]
            begun = begun[len(numbers) :]
            trials = [study.trials[number] for number in numbers]
            jobs = [[*fixed, *_words(trial)] for trial in trials]
            returns = self.launcher.launch(jobs, initial_job_idx=numbers[0])
            for number, returned in zip(numbers, returns, strict=True):
                study.tell(number, **_outcome(returned))


def _distribution(override: Override) -> "BaseDistribution":
    """Return what Optuna calls a key's sweep."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        return FloatDistribution(float(sweep.start or 0), float(sweep.end or 0), log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep):
        return CategoricalDistribution(list(sweep.range()))
    return CategoricalDistribution([str(value) for value in override.sweep_string_iterator()])


def _words(trial: "FrozenTrial") -> list[str]:
    return [f"{key}={value}" for key, value in trial.params.items()]


def _outcome(returned: JobReturn) -> dict[str, Any]:
    """Return what a study is told of a job, read from what the job left in its folder."""
    from optuna.trial import TrialState

    from crossrank.analysis.runs import stored
    from crossrank.resume import RESULT

    assert returned.hydra_cfg is not None
    folder = Path(returned.hydra_cfg.hydra.runtime.output_dir)
    result = stored(folder / RESULT)
    if result.get("best_value") is None:
        return {"state": TrialState.FAIL}
    if result.get("pruned_at") is not None:
        return {"state": TrialState.PRUNED}
    return {"values": result["best_value"]}
