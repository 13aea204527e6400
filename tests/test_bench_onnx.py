"""Both sides of bench.onnx do the same work; speed is not asserted."""

import numpy as np
import pytest
from conftest import MINILM

from bench import onnx
from bench.inputs import MAX_LENGTH
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export
from crossrank.models.onnx_export import write_onnx

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
PAIRS = [(" ".join(WORDS[i % 7 : 9]), " ".join((WORDS * 9)[: 1 + (i * 37) % 150])) for i in range(70)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    backbone = RandomInit(MINILM, "bert", hidden_size=16, max_length=MAX_LENGTH)
    model = backbone.build(3)
    for weight in model.parameters():
        weight.data *= 8
    folder = export(model, backbone.encoder(), tmp_path_factory.mktemp("bench-onnx") / "tiny")
    write_onnx(folder)
    return folder


@pytest.mark.thorough
def test_the_sides_agree_and_are_told_apart(weights):
    sides = {
        side: onnx.our_scorer(weights, how) if side.startswith("ours") else onnx.onnx_scorer(weights, how, 1, batch=16)
        for side, how in onnx.SIDES.items()
    }
    figures = onnx.measured(sides, PAIRS, groups=2)
    assert np.std(sides["ours, fp32"](PAIRS)) > 0.01
    assert figures["ours, fp32"]["gap"] == 0
    assert figures["onnxruntime, fp32"]["gap"] < onnx.GATE
    assert figures["onnxruntime, int8"]["gap"] > onnx.GATE
    table = onnx.as_markdown(figures).splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {side}" for side in onnx.SIDES]


def test_the_table_by_hand():
    figures = {
        "a": {"seconds": 0.2, "seconds_p10": 0.1, "pairs_per_second": 2000.0, "gap": 0.0, "tau": 1.0},
        "b": {"seconds": 0.4, "seconds_p10": 0.3, "pairs_per_second": 1000.4, "gap": 3e-2, "tau": 0.98765},
    }
    rows = onnx.as_markdown(figures).splitlines()[2:]
    assert rows[0] == "| a | 200 ms (100 ms) | 2,000 | 1.00 | 0e+00 | 1.0000 |"
    assert rows[1] == "| b | 400 ms (300 ms) | 1,000 | 0.50 | 3e-02 | 0.9877 |"
