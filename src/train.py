"""Train a reranker: python -m src.train experiment=quickstart."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from crossrank.errors import one_sentence
from crossrank.resume import register_run_folder


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Check the config, run it, and show what came of it."""
    with one_sentence(passed_on=HydraConfig.get().mode == RunMode.MULTIRUN):
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from rich.console import Console  # heavy imports stand here, where --help does not wait for them

    from crossrank.analysis.command_line import quoted
    from crossrank.analysis.summary import as_table
    from crossrank.config import build_training_run
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten
    from crossrank.resume import continued
    from crossrank.run import execute
    from crossrank.training.processes import run_apart

    prepare_process()
    quieten()
    hydra_config = HydraConfig.get()
    cfg, resumed = continued(cfg, hydra_config.overrides.task, Path(hydra_config.runtime.output_dir))
    run = build_training_run(cfg, resumed)
    if hydra_config.mode == RunMode.MULTIRUN and run.trainer.processes > 1:
        words = [f"resume={quoted(str(run.run_dir))}", f"cache_dir={quoted(str(run.cache_dir))}"]
        run_apart(run.run_dir, run.config, run.trainer.num_nodes, words)
        return
    result = execute(run)
    if result.rows:
        Console(width=None if sys.stdout.isatty() else 150).print(as_table(result.rows))
    print(f"best step {result.best_step}, {result.seconds / 60:.1f} minutes")
    if result.rows:
        print("brackets hold 95 % intervals; gains are over the first stage; the report says where it fails")
    print(f"model    {result.export}")
    print(f"metrics  {run.run_dir}/metrics.jsonl, {run.run_dir}/evaluations/, {run.run_dir}/report.md")
    print(f"log      {run.run_dir}/{hydra_config.job.name}.log")
    print(f"try it   python -m src.rerank reranker={result.export} documents={result.documents} query='your question'")


if __name__ == "__main__":
    register_run_folder()
    main()
