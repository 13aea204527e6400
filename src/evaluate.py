"""Evaluate any cross-encoder: python -m src.evaluate reranker=MODEL evaluators=CHOICE [budget=true]."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Check the config, evaluate, and show what came of it."""
    with one_sentence(passed_on=HydraConfig.get().mode == RunMode.MULTIRUN):
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.analysis.figures import save_budget_figure
    from crossrank.analysis.summary import as_markdown, as_table, summary_of
    from crossrank.config import build_evaluation
    from crossrank.inference.budget_study import BudgetGrid
    from crossrank.inference.evaluation_run import EvaluationRun, execute, report
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten
    from crossrank.schema import EvaluateConfig

    prepare_process()
    quieten()
    given, evaluators = build_evaluation(cfg, EvaluateConfig)
    grid = BudgetGrid(given.depths, given.lengths, given.latency_queries) if given.budget else None
    run = EvaluationRun(
        given.reranker, evaluators, given.protocol, given.main_metric, Path(given.run_dir), given.max_length,
        given.tokens_per_batch, given.precision, grid,
    )  # fmt: skip
    findings = execute(run)
    OmegaConf.save(cfg, run.run_dir / "config.yaml", resolve=True)
    rows = summary_of(findings.rows)
    (run.run_dir / "report.md").write_text(report(run, findings, as_markdown(rows)), encoding="utf-8")
    words = [f"protocol {run.protocol}; brackets hold 95 % intervals, gains are over the first stage"]
    if findings.budget is not None and save_budget_figure(findings.budget, run.run_dir / "budget.png"):
        words.append(f"budget   {run.run_dir}/budget.png")
    words.append(f"metrics  {run.run_dir}/evaluations/, {run.run_dir}/runs/, {run.run_dir}/report.md")
    close([as_table(rows)], words, {"folder": run.run_dir, "rows": [row.facts() for row in rows]})


if __name__ == "__main__":
    main()
