"""An estimate of what a training took in electricity."""

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from crossrank.data.cache import replace_text
from crossrank.errors import ConfigError

log = logging.getLogger(__name__)


class Energy(pl.Callback):
    """Writes `<run_dir>/energy.json`: kWh of processors, GPUs and memory, as codecarbon estimates them.

    It reads the counters of GPUs and, where it may, of processors, and guesses the rest from their kind and use; see
    its documentation for how far that can be trusted. It asks no network. With a `country`, an ISO 3166 code of three
    letters, it adds the mass of CO2 that is emitted there for as much electricity. A run that goes on adds up.

    Raises:
        ConfigError: codecarbon is not installed.
    """

    def __init__(self, run_dir: str, country: str | None = None) -> None:
        try:
            import codecarbon  # noqa: F401 - to know before anything is computed
        except ImportError:
            raise ConfigError(["callbacks.energy: needs codecarbon; pip install -e '.[energy]'"]) from None
        self.file, self.country = Path(run_dir) / "energy.json", country
        self._tracker: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure; each process measures its own, and the first writes what it saw."""
        if not trainer.is_global_zero:
            return
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").disabled = True
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self.country or "USA",
            tracking_mode="machine",
            save_to_file=False,
            allow_multiple_runs=True,
        )
        self._tracker.start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write what it came to, however the training ended."""
        if self._tracker is None:
            return
        self._tracker.stop()
        found, self._tracker = getattr(self._tracker, "final_emissions_data", None), None
        if found is None:  # codecarbon keeps its errors to itself
            log.warning("codecarbon could not estimate the electricity; the run goes on without")
            return
        before = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        parts = {"cpu": found.cpu_energy, "gpu": found.gpu_energy, "memory": found.ram_energy}
        parts["all"] = found.energy_consumed
        facts: dict[str, Any] = {f"{name}_kwh": before.get(f"{name}_kwh", 0.0) + value for name, value in parts.items()}
        if self.country:
            facts |= {"co2_kg": before.get("co2_kg", 0.0) + found.emissions, "country": self.country}
        facts["estimated_by"] = f"codecarbon {importlib.metadata.version('codecarbon')}"
        replace_text(self.file, json.dumps(facts, indent=2) + "\n")
        log.info("about %.3g kWh of electricity, estimated by codecarbon", facts["all_kwh"])
