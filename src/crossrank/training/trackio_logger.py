"""A run in trackio, a dashboard whose data stays on this machine."""

import contextlib
import io
import logging
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from crossrank.identity import flat
from crossrank.training.tracking import sweep_of

log = logging.getLogger(__name__)


class TrackioLogger(Logger):
    """Records a run with trackio, by optimizer step, in one SQLite file a project under `folder`.

    TRACKIO_DIR, where set, is the folder instead; what else trackio reads from the environment holds too, and where the
    hub's token is there it asks the hub for the user's name. The run is called after its folder, and one that goes on
    is the same run there; what was logged between its last state and its stop then stands there twice. With no `group`,
    the jobs of a sweep are grouped by the sweep's folder. The config is flat, with dotted keys.
    """

    def __init__(self, run_dir: str, folder: str, project: str = "crossrank", group: str | None = None) -> None:
        super().__init__()
        os.environ.setdefault("TRACKIO_DIR", str(Path(folder).absolute()))  # read once, when it is imported
        import trackio
        from trackio.utils import TRACKIO_DIR

        path = Path(run_dir).absolute()
        sweep = sweep_of(path)
        again = (path / "metrics.jsonl").is_file()
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            self.run = trackio.init(
                project=project,
                name=f"{sweep or path.parent.name}/{path.name}",
                group=group or sweep,
                resume="allow" if again else "never",
                auto_log_cpu=False,
                auto_log_gpu=False,
                embed=False,
            )
        log.info(
            "trackio: recorded in %s; show it with: TRACKIO_DIR=%s trackio show --project %s",
            TRACKIO_DIR, TRACKIO_DIR, project,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The project."""
        return str(self.run.project)

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.run.id)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep the config, which is written with the first metrics."""
        self.run.config |= flat(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics; a thread of trackio's writes them within a second."""
        self.run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Wait until all is written."""
        import trackio

        if trackio.context_vars.current_run.get() is self.run:  # Lightning may say it twice
            with contextlib.redirect_stdout(io.StringIO()):
                trackio.finish()  # type: ignore[no-untyped-call]
