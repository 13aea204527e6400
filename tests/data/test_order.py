import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossrank.data.mapped import new_array
from crossrank.data.order import BatchPlan, epoch_order, permute


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_an_epochs_order_is_torch_randperm_seeded_with_seed_plus_epoch(epoch):
    wanted = torch.randperm(1000, generator=torch.Generator().manual_seed(12 + epoch))
    assert epoch_order(1000, 12, epoch).tolist() == wanted.tolist()


def test_the_order_of_the_578402_pairs_of_the_recipe():
    assert epoch_order(578_402, 12, 0)[:5].tolist() == [432475, 265291, 181224, 251765, 161307]


@pytest.mark.parametrize("rows", [1, 1000, 70_000])
def test_an_order_that_is_written_into_a_file_is_the_same(tmp_path, rows):
    mapped = permute(new_array(tmp_path / "order.npy", rows, np.int64), 12, 3)
    assert isinstance(mapped, np.memmap)
    assert (
        np.load(tmp_path / "order.npy").tolist()
        == torch.randperm(rows, generator=torch.Generator().manual_seed(15)).tolist()
    )


def test_the_order_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    epoch_order(10, 12, 0)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize(
    ("rows", "pairs_per_step", "shares", "steps"),
    [
        (578_402, 16, 1, 36_151),  # the recipe: its last step holds 2 pairs
        (578_402, 16, 2, 36_151),
        (578_402, 16, 4, 36_150),  # 2 pairs for 4 shares: dropped
        (16, 16, 4, 1),
        (15, 16, 1, 1),
        (3, 16, 4, 0),
        (4, 16, 4, 1),
        (0, 16, 1, 0),
        (1, 1, 1, 1),
    ],
)
def test_steps_per_epoch(rows, pairs_per_step, shares, steps):
    assert BatchPlan(rows, pairs_per_step, shares).steps_per_epoch == steps


@settings(deadline=None)
@given(rows=st.integers(1, 200), per_share=st.integers(1, 9), shares=st.integers(1, 5), epoch=st.integers(0, 2))
@example(rows=10, per_share=2, shares=2, epoch=0)
def test_each_epoch_gives_every_row_once_but_a_last_step_that_cannot_serve_every_share(rows, per_share, shares, epoch):
    plan = BatchPlan(rows, per_share * shares, shares)
    order = epoch_order(rows, 5, epoch)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    parts = [[plan.rows_of(step, share, order) for share in range(shares)] for step in steps]
    seen = np.concatenate([part for step in parts for part in step]) if parts else np.empty(0, np.int64)
    left = rows % plan.pairs_per_step
    assert sorted(seen) == sorted(order[: rows - left if left < shares else rows])
    for number, step in enumerate(parts):
        whole = order[number * plan.pairs_per_step : (number + 1) * plan.pairs_per_step]
        assert sorted(np.concatenate(step)) == sorted(whole)
        assert min(map(len, step)) >= 1
        assert max(map(len, step)) - min(map(len, step)) <= 1


def test_one_share_takes_consecutive_slices_of_the_order():
    order = epoch_order(10, 5, 0)
    plan = BatchPlan(10, 4)
    assert [plan.rows_of(step, 0, order).tolist() for step in range(3)] == [
        order[:4].tolist(), order[4:8].tolist(), order[8:].tolist(),
    ]  # fmt: skip
