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
    from rich.console import Console  # heavy imports stand here, where --help does not wait for them

    from crossrank.analysis.summary import as_table
    from crossrank.config import build_training_run
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten
    from crossrank.run import execute

    prepare_process()
    quieten()
    hydra_config = HydraConfig.get()
    cfg, resumed = continued(cfg, hydra_config.overrides.task, Path(hydra_config.runtime.output_dir))
    run = build_training_run(cfg, resumed)
    result = execute(run)
    if result.rows:
        Console(width=None if sys.stdout.isatty() else 150).print(as_table(result.rows))
    print(f"best step {result.best_step}, {result.seconds / 60:.1f} minutes")
    if result.rows:
        print("brackets hold 95 % intervals; gains are over the first stage; the report says where it fails")
    print(
        f"model    {result.export}\n"
        f"metrics  {run.run_dir}/metrics.jsonl, {run.run_dir}/evaluations/, {run.run_dir}/report.md\n"
        f"log      {run.run_dir}/{hydra_config.job.name}.log\n"
        f"try it   python -m src.rerank reranker={result.export} documents={result.documents} query='your question'"
    )
    return run.evaluation.best_value if run.evaluation else None


if __name__ == "__main__":
    main()
