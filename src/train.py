"""Train a reranker: python -m src.train experiment=quickstart."""

import logging
import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

CHATTY = ("httpx", "sentence_transformers", "lightning.pytorch", "lightning.fabric", "bm25s", "matplotlib")
NOISE = (".*treespec, LeafSpec.*", ".*does not have many workers.*")


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Check the config, run it, and show what came of it."""
    from crossrank.errors import CrossrankError

    try:
        _run(cfg)
    except CrossrankError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the other jobs go on
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(cfg: DictConfig) -> None:
    from rich.console import Console  # heavy imports stand here, where --help does not wait for them

    from crossrank.allocator import keep_freed_memory
    from crossrank.analysis.summary import as_table
    from crossrank.config import build_training_run
    from crossrank.run import execute

    keep_freed_memory()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    run = build_training_run(cfg)
    run.run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run.run_dir / "config.yaml", resolve=True)
    result = execute(run)
    if result.rows:
        Console(width=None if sys.stdout.isatty() else 150).print(as_table(result.rows))
    print(f"best step {result.best_step}, {result.seconds / 60:.1f} minutes")
    if result.rows:
        print("brackets hold 95 % intervals; gains are over the first stage; the report says where it fails")
    print(f"model    {result.export}")
    print(f"metrics  {run.run_dir}/metrics.jsonl, {run.run_dir}/evaluations/, {run.run_dir}/report.md")
    print(f"log      {run.run_dir}/{HydraConfig.get().job.name}.log")
    print(f"try it   python -m src.rerank reranker={result.export} documents={result.documents} query='your question'")


if __name__ == "__main__":
    main()
