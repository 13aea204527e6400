"""Check that a run is still what was recorded of it: python -m src.verify runs/a/TIME."""

import sys
from dataclasses import asdict
from pathlib import Path

import hydra
from omegaconf import DictConfig

from crossrank.analysis.command_line import with_run
from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="verify")
def main(cfg: DictConfig) -> None:
    """Recompute every id of a run, print what differs and leave with 1 if anything does."""
    with one_sentence():
        sys.exit(_run(cfg))


def _run(cfg: DictConfig) -> int:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.gate import validate
    from crossrank.quiet import quieten
    from crossrank.schema import VerifyConfig
    from crossrank.verify import as_table, exit_code, in_words, verify

    quieten()
    validate(cfg, VerifyConfig)
    findings = verify(Path(cfg.run), Path(cfg.cache_dir) if cfg.cache_dir else None)
    close([as_table(findings)], in_words(findings), {"steps": [asdict(finding) for finding in findings]})
    return exit_code(findings)


if __name__ == "__main__":
    with one_sentence():
        sys.argv[1:] = with_run(sys.argv[1:])
    main()
