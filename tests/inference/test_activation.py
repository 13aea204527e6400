"""Against what CrossEncoder itself takes from the same files."""

import json

import pytest
import torch
from conftest import MINILM
from sentence_transformers import CrossEncoder

from crossrank.inference.activation import stated_activation
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export

IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder):
    model = RandomInit(MINILM, "bert", hidden_size=16, layers=1).build(1)
    return export(model, encoder, tmp_path_factory.mktemp("activation") / "model")


def state(folder, place, **keys):
    """Copy the model with other keys in its config.json; None takes one out."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | keys
    (place / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return place


@pytest.mark.parametrize(("keys", "expected"), [
    ({}, torch.nn.Sigmoid),
    ({"sentence_transformers": None}, torch.nn.Sigmoid),
    ({"sentence_transformers": {"activation_fn": IDENTITY}}, torch.nn.Identity),
    ({"sentence_transformers": {"version": "4.0.1"}, "sbert_ce_default_activation_function": TANH}, torch.nn.Tanh),
    ({"sentence_transformers": {"activation_fn": IDENTITY}, "sbert_ce_default_activation_function": TANH},
     torch.nn.Identity),
])  # fmt: skip
def test_what_config_json_states(keys, expected, folder, tmp_path):
    place = state(folder, tmp_path / "model", **keys)
    assert type(stated_activation(place)) is type(CrossEncoder(str(place), device="cpu").activation_fn) is expected


def test_what_sentence_transformers_writes_goes_first(folder, tmp_path):
    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Tanh())
    model.save_pretrained(str(tmp_path / "written"))
    place = state(tmp_path / "written", tmp_path / "both", sentence_transformers={"activation_fn": IDENTITY})
    for known in (tmp_path / "written", place):
        found = type(stated_activation(known))
        assert found is type(CrossEncoder(str(known), device="cpu").activation_fn) is torch.nn.Tanh
    (place / "modules.json").unlink()  # without it the file beside it is not read
    assert type(stated_activation(place)) is type(CrossEncoder(str(place), device="cpu").activation_fn)


@pytest.mark.parametrize("named", ["os.system", "torch.hub.load", "torch.nn.functional", "torch.nn.Nothing",
                                   "torch.nn.Linear", "torch.nn.modules.activation.F"])  # fmt: skip
def test_what_is_no_activation_of_torch_is_left_out_with_a_warning(named, folder, tmp_path, caplog):
    place = state(folder, tmp_path / "model", sentence_transformers={"activation_fn": named})
    assert type(stated_activation(place)) is torch.nn.Sigmoid
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "crossrank.inference.activation"]
    assert f"states the activation {named!r}, which is left out for Sigmoid" in warning
