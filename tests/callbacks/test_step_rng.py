from types import SimpleNamespace

import torch

from crossrank.callbacks.step_rng import StepKeyedRNG


def _draw(seed, position, rank=0, disturb=0):
    torch.manual_seed(99)
    torch.rand(disturb)
    progress = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=position))
    trainer = SimpleNamespace(fit_loop=progress, global_rank=rank)
    StepKeyedRNG(seed).on_train_batch_start(trainer, None, None, position)
    return tuple(torch.rand(3).tolist())


def test_a_steps_random_numbers_do_not_depend_on_what_was_drawn_before():
    assert _draw(12, 5) == _draw(12, 5, disturb=1000)


def test_seeds_micro_batches_and_ranks_draw_apart():
    draws = {_draw(seed, position, rank) for seed in (0, 1, 12) for position in range(20) for rank in range(4)}
    assert len(draws) == 3 * 20 * 4
