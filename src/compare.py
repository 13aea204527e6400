"""Compare rerankers on the same queries: python -m src.compare runs/a/TIME runs/b/TIME first_stage."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from crossrank.analysis.command_line import with_systems
from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Load the systems, bring them to the same queries, print what tells them apart."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.alignment import align
    from crossrank.analysis.closing import close
    from crossrank.analysis.compare import Resampling, compare
    from crossrank.analysis.comparison_page import as_frame, as_tables, verdicts, write
    from crossrank.analysis.systems import Judgements, load_systems
    from crossrank.config import build_evaluation
    from crossrank.inference.evaluation_run import rows_of_models
    from crossrank.schema import CompareConfig

    given, evaluators = build_evaluation(cfg, CompareConfig)
    rows_of = rows_of_models(evaluators, given.protocol, given.main_metric, Path("evaluations"))
    judgements = Judgements(Path(cfg.qrels) if cfg.qrels else None, cfg.at_k, cfg.relevant_from)
    systems = load_systems(
        list(cfg.systems), cfg.names and list(cfg.names), judgements, rows_of if evaluators else None
    )
    aligned = align(systems, cfg.metrics and list(cfg.metrics), cfg.common_only)
    comparison = compare(aligned, cfg.pairs, Resampling(cfg.confidence, cfg.resamples, cfg.seed))
    if cfg.output:
        write(comparison, Path(cfg.output))
    said = verdicts(comparison)
    close(as_tables(comparison), said, {"rows": as_frame(comparison).to_dict("records"), "verdicts": said})


if __name__ == "__main__":
    with one_sentence():
        sys.argv[1:] = with_systems(sys.argv[1:])
    main()
