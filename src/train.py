"""Train a reranker: python -m src.train experiment=quickstart."""

import logging
import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Check the config, run it, and show what came of it."""
    from crossrank.errors import CrossrankError  # after Hydra's own options, which need none of the heavy imports

    try:
        _run(cfg)
    except CrossrankError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the other jobs go on
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(cfg: DictConfig) -> None:
    from rich.console import Console

    from crossrank.analysis.summary import as_table
    from crossrank.config import build_training_run
    from crossrank.training.run import execute

    _quiet()
    run = build_training_run(cfg)
    run.run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run.run_dir / "config.yaml", resolve=True)
    result = execute(run)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(as_table(result.rows))
    console.print(
        f"trained in {result.seconds / 60:.1f} minutes; best step {result.best_step}; gains are over the first stage"
    )
    console.print(
        f"model    {result.export}\nmetrics  {result.run_dir}/metrics.jsonl, evaluations/, report.md", soft_wrap=True
    )
    console.print(f"log      {result.run_dir}/train.log", soft_wrap=True)
    documents = result.documents
    console.print(
        f"try it   python -m src.rerank model={result.export} documents={documents} query='your own question'",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


def _quiet() -> None:
    """Silence what other libraries say and nobody can act on."""
    for name in ("httpx", "sentence_transformers", "lightning.pytorch", "lightning.fabric", "bm25s", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*treespec, LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    main()
