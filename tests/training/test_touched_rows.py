import pytest
import torch

from crossrank.training.touched_rows import TouchedRows

STEPS = [[1, 2, 2, 5], [5, 7], [0, 0, 3]]  # row 0 is the padding row, which gets no gradient


def _step(embedding, optimizer, ids, weight):
    (embedding(torch.tensor(ids)) * weight[: len(ids)]).sum().backward()
    gradient = embedding.weight.grad.clone()
    optimizer.step()
    return gradient


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_gradients_and_steps_are_those_of_a_dense_embedding(micro_batches):
    dense, touched = (torch.nn.Embedding(10, 4, padding_idx=0) for _ in range(2))
    touched.load_state_dict(dense.state_dict())
    rows = TouchedRows(touched)
    optimizers = [torch.optim.AdamW(e.parameters(), lr=0.1, fused=True) for e in (dense, touched)]
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    for number, ids in enumerate(STEPS * 2):
        if number % micro_batches == 0:
            dense.weight.grad = None
            rows.clear()
        expected = _step(dense, optimizers[0], ids, weight)
        gradient = _step(touched, optimizers[1], ids, weight)
        assert not gradient.is_sparse
        torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(touched.weight, dense.weight)


def test_it_leaves_the_embedding_as_it_was():
    embedding = torch.nn.Embedding(10, 4)
    rows = TouchedRows(embedding)
    rows.clear()
    embedding(torch.tensor([3])).sum().backward()
    rows.close()
    assert embedding.weight.grad is None
    embedding(torch.tensor([3])).sum().backward()
    assert embedding.weight.grad.layout == torch.strided
    assert not embedding.weight._backward_hooks
