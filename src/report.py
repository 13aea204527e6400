"""Show a run or a sweep on one page of HTML: python -m src.report runs/a/TIME."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from crossrank.analysis.command_line import with_run
from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    """Write the page and say where it is."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.gate import validate
    from crossrank.quiet import quieten
    from crossrank.reports import write_report
    from crossrank.schema import ReportConfig

    quieten()
    validate(cfg, ReportConfig)
    page = write_report(Path(cfg.run), Path(cfg.output) if cfg.output else None)
    close([], [f"report   {page}"], {"report": page})


if __name__ == "__main__":
    with one_sentence():
        sys.argv[1:] = with_run(sys.argv[1:])
    main()
