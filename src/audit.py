"""Audit the negatives and the leaks of a training set: python -m src.audit experiment=gooaq_bce."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="audit")
def main(cfg: DictConfig) -> None:
    """Check the config, mine unless the pool is there, look, and say what was found."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.audit.findings import Audit, audit
    from crossrank.config import build_audit
    from crossrank.data.prepared_pool import TrainingTexts, prepare_pool
    from crossrank.hub import require
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten

    prepare_process()
    quieten()
    run, given = build_audit(cfg)
    require(run.assets())
    texts = TrainingTexts(run.source, run.cache_dir)
    pool = prepare_pool(texts, run.miner, run.policy, run.data.pool_depth).pool  # as it is before the teacher
    evaluators = run.evaluation.evaluators.values() if run.evaluation else ()
    asked = Audit(
        texts, pool, run.policy, [task for evaluator in evaluators for task in evaluator.tasks], run.teacher,
        given.sample, given.sheet, given.seed, *(Path(path) if path else None for path in (given.labels, given.run)),
    )  # fmt: skip
    sections = audit(asked, run.run_dir)
    page, sheet = run.run_dir / "audit.md", run.run_dir / "sheet.csv"
    words = [f"page   {page}", f"sheet  {sheet}: fill in its column 'relevant', then give it as audit.labels"]
    found = [{"title": section.title, **section.facts()} for section in sections]
    close([section.as_table() for section in sections], words, {"page": page, "sheet": sheet, "sections": found})


if __name__ == "__main__":
    main()
