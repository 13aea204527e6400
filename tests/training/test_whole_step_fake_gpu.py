"""What a step does on a GPU, seen where there is none: see `fake_gpu`."""

import fake_gpu
import pytest

pytestmark = pytest.mark.skipif(fake_gpu.COMPILER is None, reason="needs g++ and torch's CPU build")
ALL, LOCAL = [-1, -1], [8, 8]  # tokens to either side that a token sees


def test_the_host_waits_for_the_device_only_where_something_is_logged(tmp_path):
    found = fake_gpu.seen("runs", tmp_path)
    assert set(found) == {"modernbert", "bert"}
    for one in found.values():
        assert one["steps that wait"] == [1, fake_gpu.LOGGED_EVERY, fake_gpu.STEPS]
        assert one["losses that wait"] == []
        assert one["waits to score"] == 1  # for all batches together
    assert found["modernbert"]["windows"] == [ALL, LOCAL]
    assert found["bert"]["windows"] == [ALL]


@pytest.mark.thorough
def test_torch_compile_makes_one_graph_of_each_pass_for_batches_of_all_shapes(tmp_path):
    assert fake_gpu.seen("compile", tmp_path) == {"modernbert": 2, "bert": 2}


@pytest.mark.thorough
def test_the_fused_forward_saves_launches(tmp_path):
    launches = fake_gpu.seen("launches", tmp_path)
    assert launches["fused"] < 0.65 * launches["packed"]
