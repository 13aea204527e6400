"""Mine a pool of hard negatives: python -m src.mine experiment=gooaq_bce."""

import hydra
from omegaconf import DictConfig

from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="mine")
def main(cfg: DictConfig) -> None:
    """Check the config, mine unless the pool is there, and say what the policy finds in it."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.audit.pool import pool_section
    from crossrank.config import build_training_run
    from crossrank.data.prepared_pool import TrainingTexts, prepare_pool
    from crossrank.hub import require
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten

    prepare_process()
    quieten()
    run = build_training_run(cfg)
    require([*run.source.assets(), *run.miner.assets(), *(run.teacher.assets() if run.teacher else ())])
    texts = TrainingTexts(run.source, run.cache_dir)
    made = prepare_pool(texts, run.miner, run.policy, run.data.pool_depth, run.teacher)
    section = pool_section(made.pool, run.policy)
    close([section.as_table()], [f"pool {made.folder}"], {"pool": made.folder, **section.facts()})


if __name__ == "__main__":
    main()
