"""sentence-transformers' losses on given logits, and lists to try them on."""

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn


class Given(CrossEncoder):
    """Stands in for the model: a "document" is the place of its logit."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        nn.Module.__init__(self)
        self.logits = logits

    def preprocess(self, pairs, prompt=None, task=None):
        return {"places": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, inputs):
        return {"scores": self.logits[inputs["places"]][:, None]}


def random_lists(seed, kind="graded", lengths=(1, 5, 2, 7, 3, 4), ties=False):
    """Return logits, labels and query_index of ragged lists, list by list; the one of 2 has no positive.

    `distinct` labels have no ties and lie from 0 to 4; `scores` run from -8 to 8.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = sum(lengths)
    logits = torch.randn(pairs, generator=generator) * 2
    if ties:
        logits = logits.round()
    query_index = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    labels = {
        "graded": torch.randint(0, 4, (pairs,), generator=generator).float(),
        "binary": torch.randint(0, 2, (pairs,), generator=generator).float(),
        "distinct": torch.randperm(pairs, generator=generator) * 4 / pairs,
        "scores": torch.rand(pairs, generator=generator) * 16 - 8,
    }[kind]
    if kind in ("graded", "binary"):
        labels[query_index == 2] = 0
    return logits, labels, query_index


def by_list(labels: Tensor, query_index: Tensor, order: Tensor | None = None):
    """Return the peer's inputs, [questions, lists of documents], and its lists of labels, pairs taken in an order."""
    order = torch.arange(len(labels)) if order is None else order
    questions = query_index.unique().tolist()
    places = [[int(i) for i in order if query_index[i] == q] for q in questions]
    return [questions, places], [labels[own] for own in places]


def value_and_gradient(loss, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a function of the logits gives and its gradient."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def assert_same(ours, theirs, logits: Tensor) -> None:
    """Compare two functions of the logits by value and gradient."""
    for a, b in zip(value_and_gradient(ours, logits), value_and_gradient(theirs, logits), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert value_and_gradient(ours, logits)[1].abs().max() > 1e-4


def assert_gradient_is_that_of_differences(loss, logits: Tensor, labels: Tensor, query_index: Tensor) -> None:
    """Run gradcheck in float64."""
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, query_index), (leaf,))


def assert_blind_to_order(loss, logits: Tensor, labels: Tensor, query_index: Tensor) -> None:
    """Permute the pairs and rename the lists."""
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(5))
    renamed = torch.randperm(len(logits), generator=torch.Generator().manual_seed(6))[query_index]
    value = loss(logits, labels, query_index)
    torch.testing.assert_close(loss(logits[order], labels[order], renamed[order]), value, rtol=1e-5, atol=1e-7)


def assert_equals_the_peers_order_loss(ours, peer, seed, respect_input_order):
    """Where no labels are equal; a peer that is told to respect the input's order is given that of the labels."""
    logits, labels, query_index = random_lists(seed, "distinct", ties=True)
    inputs, own = by_list(labels, query_index, labels.argsort(descending=True) if respect_input_order else None)
    assert_same(
        lambda z: ours()(z, labels, query_index),
        lambda z: peer(Given(z), respect_input_order=respect_input_order)(inputs, own),
        logits,
    )
