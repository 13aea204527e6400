"""Export a run again, checked, and upload it: python -m src.export runs/a/TIME [push=organisation/name]."""

import sys
from dataclasses import asdict
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from crossrank.analysis.command_line import with_run
from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="export")
def main(cfg: DictConfig) -> None:
    """Write the export, check it in each consumer, upload it where that is asked for, and say what came of it."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close  # heavy imports stand here, where --help does not wait for them
    from crossrank.gate import validate
    from crossrank.process import prepare_process
    from crossrank.push import Destination, as_table, push, refuse_unless_possible, to_be_uploaded
    from crossrank.quiet import quieten
    from crossrank.reexport import reexport
    from crossrank.schema import ExportConfig

    prepare_process()
    quieten()
    validate(cfg, ExportConfig)
    given = ExportConfig.model_validate(OmegaConf.to_container(cfg, resolve=True))
    to = Destination(given.push, given.private, given.branch, given.create_pr) if given.push else None
    if to and not given.dry_run:
        refuse_unless_possible()
    output = Path(given.output) if given.output else None
    made = reexport(Path(given.run), output, given.consumers, given.onnx)
    tables, words = [made.table()], [f"model    {made.folder}, of step {made.step}"]
    facts = {"run": made.run_dir, "export": made.folder, "step": made.step, "parity": made.parity}
    if to or given.dry_run:
        files = to_be_uploaded(made.folder)
        tables.append(as_table(files))
        facts["files"] = [asdict(file) for file in files]
    if to and not given.dry_run:
        facts["uploaded"] = push(made.folder, to, f"Add the model of step {made.step}")
        words.append(f"uploaded {facts['uploaded']}")
    close(tables, words, facts)


if __name__ == "__main__":
    with one_sentence():
        sys.argv[1:] = with_run(sys.argv[1:])
    main()
