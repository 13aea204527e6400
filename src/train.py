"""Train a reranker: python -m src.train experiment=quickstart."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from crossrank.errors import one_sentence
from crossrank.resume import continued

PROGRAM = [sys.executable, *(("-m", __spec__.name) if __spec__ else (str(Path(__file__).absolute()),))]


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Check the config, run it, and show what came of it; return the best value of the monitored metric."""
    with one_sentence():
        return _job(cfg) if HydraConfig.get().mode == RunMode.MULTIRUN else _run(cfg)


def _job(cfg: DictConfig) -> float | None:
    from crossrank.jobs import Job
    from crossrank.quiet import quieten

    quieten()
    hydra_config = HydraConfig.get()
    return Job(Path(hydra_config.runtime.output_dir), hydra_config.overrides.task, PROGRAM).run(cfg)


def _run(cfg: DictConfig) -> float | None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.analysis.rerun import compared
    from crossrank.analysis.summary import as_table
    from crossrank.config import build_training_run, write_origin
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten
    from crossrank.run import execute

    prepare_process()
    quieten()
    hydra_config = HydraConfig.get()
    cfg, resumed = continued(cfg, hydra_config.overrides.task, Path(hydra_config.runtime.output_dir))
    run = build_training_run(cfg, resumed)
    if not resumed:
        write_origin(cfg, hydra_config.overrides.task, run.run_dir)
    result = execute(run)
    again = compared(Path(cfg.rerun), run.run_dir) if cfg.rerun else None
    words = [*result.words(), *([again.words(Path(cfg.rerun))] if again else [])]
    close([as_table(result.rows)] if result.rows else [], words, result.facts())
    if again and again.differences:
        sys.exit(1)
    return run.evaluation.best_value if run.evaluation else None


if __name__ == "__main__":
    main()
