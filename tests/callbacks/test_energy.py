import json
import sys
from types import SimpleNamespace

import codecarbon
import pytest

from crossrank.callbacks.energy import Energy
from crossrank.errors import ConfigError


class Tracker:
    """Stands for codecarbon's, whose numbers depend on the machine."""

    def __init__(self, **settings):
        self.settings, self.began = settings, False

    def start(self):
        self.began = True

    def stop(self):
        assert self.began
        self.final_emissions_data = SimpleNamespace(
            cpu_energy=0.5, gpu_energy=2.0, ram_energy=0.25, energy_consumed=2.75, emissions=1.5
        )


def measured(folder, monkeypatch, country=None, first=True):
    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", Tracker)
    callback, trainer = Energy(str(folder), country), SimpleNamespace(is_global_zero=first)
    callback.on_train_start(trainer, None)
    callback.teardown(trainer, None, "fit")
    return json.loads((folder / "energy.json").read_text()) if (folder / "energy.json").exists() else None


def test_a_run_that_goes_on_adds_up(tmp_path, monkeypatch):
    once = measured(tmp_path, monkeypatch)
    kwh = {"cpu_kwh": 0.5, "gpu_kwh": 2.0, "memory_kwh": 0.25, "all_kwh": 2.75}
    assert once == {**kwh, "estimated_by": f"codecarbon {codecarbon.__version__}"}
    twice = measured(tmp_path, monkeypatch, "DEU")
    assert {name: twice[name] for name in kwh} == {name: 2 * value for name, value in kwh.items()}
    assert (twice["co2_kg"], twice["country"]) == (1.5, "DEU")


def test_of_several_processes_one_measures(tmp_path, monkeypatch):
    assert measured(tmp_path, monkeypatch, first=False) is None


@pytest.mark.filterwarnings("default")  # its own, which would keep it from measuring
def test_codecarbon_itself_measures_more_than_nothing(tmp_path):
    callback, trainer = Energy(str(tmp_path)), SimpleNamespace(is_global_zero=True)
    callback.on_train_start(trainer, None)
    sum(i * i for i in range(10**6))
    callback.teardown(trainer, None, "fit")
    found = json.loads((tmp_path / "energy.json").read_text())
    assert 0 < found["all_kwh"] < 0.1
    assert found["all_kwh"] == pytest.approx(found["cpu_kwh"] + found["gpu_kwh"] + found["memory_kwh"])


def test_what_cannot_be_estimated_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Tracker, "stop", lambda self: None)
    assert measured(tmp_path, monkeypatch) is None
    assert "could not estimate the electricity" in caplog.text


def test_without_codecarbon_it_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[energy\]'"):
        Energy(str(tmp_path))
